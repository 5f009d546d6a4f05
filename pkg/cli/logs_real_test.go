package cli_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	logservice "vpnd/pkg/services/logs"
)

// realLogs is a log service that reads real files, behind a vpnd whose users
// and sessions are canned.
type realLogs struct {
	t        *testing.T
	dir      string // of log files
	store    string
	conn     *rpc.Conn
	terminal cli.Terminal
}

func newRealLogs(t *testing.T) *realLogs {
	t.Helper()
	top, err := os.MkdirTemp("", "vpnctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	r := &realLogs{t: t, dir: filepath.Join(top, "log"), store: filepath.Join(top, "state")}
	for _, d := range []string{r.dir, r.store} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(top, "logs"))
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Logs.Dirs = []string{r.dir}
	env := &service.Env{Name: "logs", Config: c, StateDir: r.store, RunDir: top, Log: slog.New(slog.DiscardHandler), Events: service.NewEvents("logs")}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	admit := func(rpc.PeerCred) (rpc.Caller, error) { return rpc.Caller{Name: "control", Access: rpc.Internal}, nil }
	go func() { ended <- service.Serve(ctx, logservice.Definition(), env, admit, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the log service ended with %v", err)
		}
	})
	r.conn = rpc.DialUnix("logs", filepath.Join(top, "logs"), rpc.Options{})
	w := fakevpnd.New()
	w.LogService = r.conn
	r.terminal = cli.Terminal{Host: serve(t, w), Width: 80, Height: 24, Env: map[string]string{"NO_COLOR": "1"}}
	return r
}

// write appends lines to a file.
func (r *realLogs) write(file string, lines ...string) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, file), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if cerr := f.Close(); err != nil || cerr != nil {
		r.t.Fatal(err, cerr)
	}
}

func (r *realLogs) waitFor(query string, n int64) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := logs.Count.Call(r.t.Context(), r.conn, &logs.Ask{Query: query})
		if err == nil && got.Count == n {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %+v lines, %v; want %d", query, got, err, n)
		}
	}
}

// brandNew is a line that every example which follows waits for.
func brandNew(n int) string {
	return fmt.Sprintf(`{"level":"fatal","service":"auth","event":"auth.refused","message":"sign-in refused, brand-new-%d-","user":"alice","session":"ses_carolnote000000000","dur_ms":999}`, n)
}

// story writes lines of the last days for the examples to find.
func (r *realLogs) story() {
	r.t.Helper()
	now := time.Now().UTC()
	n := int64(0)
	for _, ago := range []time.Duration{0, 10 * time.Minute, 50 * time.Minute, 20 * time.Hour, 3 * 24 * time.Hour, 9 * 24 * time.Hour} {
		say := func(file, level, rest string) {
			r.write(file, fmt.Sprintf(`{"ts":%q,"level":%q,"service":%q,%s}`, now.Add(-ago).Format(time.RFC3339Nano), level, file[:len(file)-4], rest))
			n++
		}
		say("auth.log", "info", `"event":"auth.signed_in","message":"signed in","user":"alice","dur_ms":312,"remote":"203.0.113.9"`)
		say("auth.log", "warn", `"event":"auth.refused","message":"sign-in refused","user":"alice","dur_ms":148,"remote":"203.0.113.77"`)
		say("auth.log", "error", `"event":"auth.refused","message":"sign-in refused","user":"bob","dur_ms":448,"remote":"203.0.113.77","tries":3`)
		say("gateway.log", "debug", `"event":"ping","dur_ms":1.5,"peer":{"ip":"10.8.0.7"}`)
		say("gateway.log", "error", `"event":"upstream_gone","message":"count of peers: 3","user":"carol"`)
		say("users.log", "warn", `"event":"user.suspended","message":"suspended by root","user":"bob"`)
		say("sessions.log", "info", `"event":"session.opened","user":"alice","device":"phone-1","session":"ses_alicelaptop0000000"`)
		say("sessions.log", "info", `"event":"session.opened","user":"carol","session":"ses_carolnote000000000"`)
	}
	r.waitFor("", n)
}
