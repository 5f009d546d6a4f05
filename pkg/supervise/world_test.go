package supervise_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/supervise"
)

const patience = 20 * time.Second

// world is a running supervisor with a directory of its own.
type world struct {
	t   *testing.T
	dir string
	*supervise.Supervisor
	out, err *buffer
	cancel   context.CancelFunc
	result   chan error
}

// buffer is a writer that can be read meanwhile.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// quick makes everything happen in a test's time.
func quick() supervise.Timing {
	return supervise.Timing{
		Backoff: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Forgive: 300 * time.Millisecond,
		FailAfter: 4, FailedRetry: 400 * time.Millisecond, Shutdown: 10 * time.Second,
	}
}

// tempDir is under /tmp, short enough for socket paths and passable for every
// user, unlike t.TempDir.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func service(dir, name, role string) supervise.Spec {
	return supervise.Spec{
		Cmd: []string{program}, Env: map[string]string{roleEnv: role, "NAME": name},
		SocketPath: dir + "/" + name + ".sock", Inherit: true,
		Heartbeat: supervise.Heartbeat{Interval: ms(50), Timeout: ms(1000), Grace: ms(10_000)},
		Stop:      supervise.Stop{Timeout: ms(5000)},
	}
}

func ms(n int) supervise.Duration {
	return supervise.Duration(n) * supervise.Duration(time.Millisecond)
}

func run(t *testing.T, dir string, services map[string]supervise.Spec, opts ...func(*supervise.Config, *supervise.Deps)) *world {
	t.Helper()
	w := &world{t: t, dir: dir, out: &buffer{}, err: &buffer{}, result: make(chan error, 1)}
	cfg := supervise.Config{Services: services, RunDir: dir, Timing: quick()}
	log := &buffer{}
	deps := supervise.Deps{Log: slog.New(slog.NewTextHandler(log, nil)), Stdout: w.out, Stderr: w.err}
	for _, o := range opts {
		o(&cfg, &deps)
	}
	s, err := supervise.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	w.Supervisor = s
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() { w.result <- s.Run(ctx) }()
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s\nstderr of services:\n%.3000s", log, w.err)
		}
	})
	return w
}

// stop ends Run and gives its result; further calls give nil.
func (w *world) stop() error {
	w.cancel()
	select {
	case err, open := <-w.result:
		if open {
			close(w.result)
		}
		return err
	case <-time.After(patience):
		return fmt.Errorf("Run did not return within %v", patience)
	}
}

func (w *world) get(name string) supervise.Status {
	w.t.Helper()
	st, err := w.Get(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// until polls until a service's status fulfils the condition.
func (w *world) until(name, what string, cond func(supervise.Status) bool) supervise.Status {
	w.t.Helper()
	var st supervise.Status
	eventually(w.t, name+" "+what, func() bool {
		st = w.get(name)
		return cond(st)
	})
	return st
}

func (w *world) untilState(name string, want supervise.State) supervise.Status {
	w.t.Helper()
	return w.until(name, "becomes "+string(want), func(s supervise.Status) bool { return s.State == want })
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// call sends one line and gives the answer; it may wait in the backlog.
func call(path, line string) (string, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func askSelf(t *testing.T, path string) self {
	t.Helper()
	answer, err := call(path, `{"action":"self"}`)
	if err != nil {
		t.Fatal(err)
	}
	var s self
	if err := json.Unmarshal([]byte(answer), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// gone says whether a process has ended; a zombie that nobody has collected
// yet has.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z ")) || bytes.Contains(stat, []byte(") X "))
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if pid <= 0 {
		t.Fatalf("no process to send %v", sig)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}
