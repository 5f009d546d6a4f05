package logs_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/services/logs"
)

// world is a folder of log files and the service on it, served on a socket.
type world struct {
	t      testing.TB
	dir    string // of log files
	state  string
	socket string
	cfg    config.Logs
	conn   *rpc.Conn
	stop   func()
	events *service.Events
}

func newWorld(t testing.TB) *world {
	t.Helper()
	top := t.TempDir()
	w := &world{t: t, dir: filepath.Join(top, "log"), state: filepath.Join(top, "state"), socket: filepath.Join(top, "logs.sock"), cfg: config.Default().Logs}
	w.cfg.Dirs = []string{w.dir}
	for _, d := range []string{w.dir, w.state} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start runs the service as its process would.
func (w *world) start() {
	w.t.Helper()
	_ = os.Remove(w.socket)
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	c := config.Default()
	c.Logs = w.cfg
	w.events = service.NewEvents("logs")
	env := &service.Env{Name: "logs", Config: c, StateDir: w.state, RunDir: w.state, Log: slog.New(slog.DiscardHandler), Events: w.events}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	admit := func(rpc.PeerCred) (rpc.Caller, error) { return rpc.Caller{Name: "control", Access: rpc.Internal}, nil }
	go func() { ended <- service.Serve(ctx, logs.Definition(), env, admit, l) }()
	w.conn = rpc.DialUnix("logs", w.socket, rpc.Options{})
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the service ended with %v", err)
		}
		w.conn.CloseIdle()
	})
	w.count("") // it has started
}

// write appends lines to a log file.
func (w *world) write(name string, lines ...string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	for _, l := range lines {
		if _, err := fmt.Fprintln(f, l); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) count(query string) int64 {
	w.t.Helper()
	n, err := api.Count.Call(w.t.Context(), w.conn, &api.Ask{Query: query})
	if err != nil {
		w.t.Fatalf("count %s: %v", query, err)
	}
	return n.Count
}

func (w *world) waitFor(query string, n int64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d lines of %q", n, query), func() bool { return w.count(query) == n })
}

func (w *world) query(req *api.QueryRequest) *rpc.List[api.Record] {
	w.t.Helper()
	l, err := api.Query.Call(w.t.Context(), w.conn, req)
	if err != nil {
		w.t.Fatalf("query %s: %v", req.Query, err)
	}
	return l
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// at is a time of today, or of the day before shortly after midnight: lines of
// the future do not count as such.
func at(offset time.Duration) string {
	return time.Now().UTC().Add(-time.Hour).Truncate(time.Hour).Add(offset).Format(time.RFC3339Nano)
}

func newWorldConfig(dirs ...string) config.Logs {
	c := config.Default().Logs
	c.Dirs = dirs
	return c
}
