package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

type noteReq struct {
	Body struct {
		ID  string `json:"id"`
		Pad string `json:"pad,omitempty"`
	}
}

var (
	note   = rpc.Op[noteReq, rpc.None]{Info: rpc.Info{ID: "note", Method: "POST", Path: "/v1/notes", Access: rpc.View}}
	renote = rpc.Op[noteReq, rpc.None]{Info: rpc.Info{ID: "renote", Method: "POST", Path: "/v1/renotes", Access: rpc.View, Repeatable: true}}
)

// TestServerProcess is the server that the tests below kill. It writes down
// every call before it answers; what is written outlives the process.
func TestServerProcess(t *testing.T) {
	journal := os.Getenv("RPC_TEST_JOURNAL")
	if journal == "" {
		t.Skip("run by other tests")
	}
	f, err := os.OpenFile(journal, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	s := rpc.NewServer(rpc.ServerConfig{Name: "notes", Identify: viewer})
	for _, op := range []rpc.Op[noteReq, rpc.None]{note, renote} {
		rpc.Handle(s, op, func(_ context.Context, r *noteReq) (*rpc.None, error) {
			_, err := f.WriteString(r.Body.ID + "\n")
			return nil, err
		})
	}
	ctx, cancel := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer cancel()
	go func() { // until the parent is gone
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	if err := s.Serve(ctx, l); err != nil {
		t.Fatal(err)
	}
}

// killed is a server process behind a listener that outlives it, the way the
// supervisor keeps one.
type killed struct {
	t       *testing.T
	path    string
	journal string
	socket  *os.File
	cmd     *exec.Cmd
}

func newKilled(t *testing.T) *killed {
	dir := t.TempDir()
	k := &killed{t: t, path: filepath.Join(dir, "s.sock"), journal: filepath.Join(dir, "journal")}
	if err := os.WriteFile(k.journal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", k.path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if k.socket, err = l.(*net.UnixListener).File(); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	t.Cleanup(func() {
		k.end(syscall.SIGKILL)
		_ = k.socket.Close()
	})
	return k
}

func (k *killed) start() {
	k.cmd = exec.Command("/proc/self/exe", "-test.run=^TestServerProcess$", "-test.timeout=120s")
	k.cmd.Env = append(os.Environ(), "RPC_TEST_JOURNAL="+k.journal, "GORACE=atexit_sleep_ms=0")
	k.cmd.ExtraFiles = []*os.File{k.socket}
	if _, err := k.cmd.StdinPipe(); err != nil {
		k.t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
}

func (k *killed) end(sig os.Signal) {
	if k.cmd != nil {
		_ = k.cmd.Process.Signal(sig)
		_ = k.cmd.Wait() // it was told to
		k.cmd = nil
	}
}

func (k *killed) executions() map[string]int {
	data, err := os.ReadFile(k.journal)
	if err != nil {
		k.t.Fatal(err)
	}
	n := map[string]int{}
	for line := range strings.Lines(string(data)) {
		n[strings.TrimSpace(line)]++
	}
	return n
}

// interval is when something happened.
type interval struct{ from, to time.Time }

func TestKillingTheServerFailsNoLaterCall(t *testing.T) {
	const callers, kills = 8, 15
	for _, tc := range []struct {
		name string
		op   rpc.Op[noteReq, rpc.None]
		sig  os.Signal
		pad  int
	}{
		{"kill -9", note, syscall.SIGKILL, 0},
		{"kill -9, large requests", note, syscall.SIGKILL, 20_000},
		{"kill -9, repeatable", renote, syscall.SIGKILL, 0},
		{"SIGTERM", note, syscall.SIGTERM, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKilled(t)
			k.start()
			conn := rpc.DialUnix("notes", k.path, rpc.Options{})
			defer conn.CloseIdle()
			pad := strings.Repeat("x", tc.pad)

			type result struct {
				id  string
				at  interval
				err error
			}
			var mu sync.Mutex
			var results []result
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						req := &noteReq{}
						req.Body.ID, req.Body.Pad = fmt.Sprintf("%d.%d", c, i), pad
						r := result{id: req.Body.ID, at: interval{from: time.Now()}}
						_, r.err = tc.op.Call(t.Context(), conn, req)
						r.at.to = time.Now()
						mu.Lock()
						results = append(results, r)
						mu.Unlock()
					}
				})
			}
			done := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(results)
			}
			var deaths []interval
			for range kills {
				enough := done() + 100
				eventually(t, "calls", func() bool { return done() >= enough })
				d := interval{from: time.Now()}
				_ = k.cmd.Process.Signal(tc.sig)
				d.to = time.Now()
				k.end(tc.sig)
				deaths = append(deaths, d)
				k.start()
			}
			enough := done() + 100
			eventually(t, "calls", func() bool { return done() >= enough })
			stop()
			wg.Wait()

			executed := k.executions()
			failed, twice := 0, 0
			for _, r := range results {
				n := executed[r.id]
				switch {
				case r.err == nil && n == 0:
					t.Errorf("call %s succeeded and was never executed", r.id)
				case n > 1 && tc.op.Repeatable:
					twice++
				case n > 1:
					t.Errorf("call %s was executed %d times", r.id, n)
				}
				if r.err == nil {
					continue
				}
				failed++
				underway := false
				for _, d := range deaths {
					underway = underway || r.at.from.Before(d.to) && d.from.Before(r.at.to)
				}
				if tc.sig == syscall.SIGTERM || !underway || tc.op.Repeatable || !errors.Is(r.err, fault.Unavailable) {
					t.Errorf("call %s failed, executed %d times: %v", r.id, n, r.err)
				}
			}
			t.Logf("%d calls, %d failed under way, %d executed twice", len(results), failed, twice)
		})
	}
}

func TestACallWaitsForTheNextServer(t *testing.T) {
	k := newKilled(t)
	conn := rpc.DialUnix("notes", k.path, rpc.Options{})
	defer conn.CloseIdle()
	result := make(chan error, 1)
	go func() {
		req := &noteReq{}
		req.Body.ID = "1"
		_, err := note.Call(t.Context(), conn, req)
		result <- err
	}()
	select {
	case err := <-result:
		t.Fatalf("nobody listens, and the call ended with %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	k.start()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestAStaleSocketIsWaitedForAndAMissingOneIsNot(t *testing.T) {
	dir := t.TempDir()
	missing := rpc.DialUnix("notes", filepath.Join(dir, "none"), rpc.Options{})
	began := time.Now()
	for _, op := range []rpc.Op[noteReq, rpc.None]{note, renote} {
		if _, err := op.Call(t.Context(), missing, nil); !errors.Is(err, fault.Unavailable) {
			t.Errorf("missing socket: %v", err)
		}
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("a server that does not run was waited for %v", d)
	}

	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := note.Call(t.Context(), rpc.DialUnix("notes", stale, rpc.Options{Patience: -1}), nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("stale socket, no patience: %v", err)
	}
	if _, err := note.Call(t.Context(), rpc.DialUnix("notes", stale, rpc.Options{Patience: 50 * time.Millisecond}), nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("stale socket, patience: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := note.Call(ctx, rpc.DialUnix("notes", stale, rpc.Options{}), nil); !errors.Is(err, fault.Timeout) {
		t.Errorf("stale socket, own deadline: %v", err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := list.Call(t.Context(), rpc.DialUnix("svc", stale, rpc.Options{}), nil)
		result <- err
	}()
	s := rpc.NewServer(rpc.ServerConfig{Name: "svc", Identify: viewer})
	rpc.Handle(s, list, func(context.Context, *struct{}) (*rpc.List[int], error) { return &rpc.List[int]{}, nil })
	if l, err = net.Listen("unix", stale+".new"); err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Rename(stale+".new", stale); err != nil {
		t.Fatal(err)
	}
	serving, cancelServe := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(serving, l) }()
	if err := <-result; err != nil {
		t.Errorf("once somebody listens: %v", err)
	}
	cancelServe()
	<-done
}
