//go:build linux

package daemon_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
	"vpnd/pkg/rpc"
)

const (
	programPath  = "/run/programs/vpnd"
	configPath   = "/etc/vpnd/vpnd.toml"
	servicesPath = "/etc/vpnd/services.json"
	logPath      = "/var/log/vpnd.out"
)

// settings are those of the tests: accounts that need nothing on the host, and
// cheap password hashes.
const settings = `
[users]
mode = "dynamic"
[server]
endpoint = "vpn.example.org"
[auth.argon2]
memory_kib = 64
time = 1
threads = 1
`

// world is a machine on which vpnd runs: this test binary, as root.
type world struct {
	t     *testing.T
	m     *lab.Machine
	conn  *rpc.Conn
	cmd   *lab.Cmd
	ended chan error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l, err := lab.New(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, m: l.Machine(lab.Server)}
	w.conn = rpc.DialUnix("supervisor", "", rpc.Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return w.m.DialContext(ctx, "unix", "/run/vpnd/supervisor.sock")
	}})
	t.Cleanup(w.conn.CloseIdle)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	w.write(programPath, string(self), 0o755)
	w.write(configPath, settings, 0o644)
	return w
}

func (w *world) write(path, text string, mode os.FileMode) {
	w.t.Helper()
	err := w.m.Do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) command(args ...string) *lab.Cmd {
	cmd := w.m.Command(programPath, args...)
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	return cmd
}

// start runs vpnd and returns when every service is ready.
func (w *world) start() {
	w.t.Helper()
	var out *os.File
	err := w.m.Do(func() (err error) {
		out, err = os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	w.cmd = w.command("run", "--config", configPath)
	w.cmd.Stdout, w.cmd.Stderr = out, out
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ended = make(chan error, 1)
	cmd, ended := w.cmd, w.ended
	go func() { ended <- cmd.Wait(); close(ended) }()
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if strings.Contains(w.log(), "DATA RACE") {
			w.t.Error("a race was detected in vpnd")
		}
		if w.t.Failed() {
			w.t.Logf("vpnd said:\n%s", tail(w.log(), 60))
		}
	})
	w.allReady()
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (w *world) log() string {
	data, _ := w.m.ReadFile(logPath) // the best there is
	return string(data)
}

func (w *world) list() map[string]supervisor.Service {
	w.t.Helper()
	l, err := supervisor.List.Call(w.t.Context(), w.conn, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]supervisor.Service{}
	for _, s := range l.Items {
		out[s.Name] = s
	}
	return out
}

func (w *world) pids() map[string]int {
	out := map[string]int{}
	for name, s := range w.list() {
		out[name] = s.PID
	}
	return out
}

func (w *world) allReady() {
	w.t.Helper()
	began := time.Now()
	var last string
	for deadline := began.Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		l, err := supervisor.List.Call(w.t.Context(), w.conn, nil)
		last = fmt.Sprint(err)
		if err == nil {
			ready := 0
			for _, s := range l.Items {
				if s.State == "ready" || s.State == "running" || s.State == "disabled" {
					ready++
				} else {
					last = s.Name + " is " + s.State + ": " + s.Reason
				}
			}
			if ready == len(l.Items) {
				w.t.Logf("%d services ready after %v", ready, time.Since(began).Round(time.Millisecond))
				return
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not everything is ready: %s\n%s", last, tail(w.log(), 30))
		}
	}
}

func (w *world) reload() (*supervisor.Changes, error) {
	return supervisor.Reload.Call(w.t.Context(), w.conn, nil)
}

// restarted reloads and gives who has another process than before.
func (w *world) restarted() []string {
	w.t.Helper()
	before := w.pids()
	if _, err := w.reload(); err != nil {
		w.t.Fatal(err)
	}
	w.allReady()
	return w.changed(before)
}

func (w *world) changed(before map[string]int) []string {
	w.t.Helper()
	var out []string
	for name, pid := range w.pids() {
		if before[name] != pid {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// answers tells whether TLS is spoken at an address of the machine.
func (w *world) answers(addr string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	c, err := w.m.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheWholeOnOneMachine(t *testing.T) {
	w := newWorld(t)
	w.start()
	base := config.Default().Users.Base

	t.Run("every service runs as itself", func(t *testing.T) {
		uids := map[string]bool{}
		for name, s := range w.list() {
			uid, _, _ := strings.Cut(s.User, ":")
			if s.State != "ready" || uids[uid] || s.Restarts != 0 || s.Command[2] != name {
				t.Errorf("%s: %+v", name, s)
			}
			uids[uid] = true
			var st unix.Stat_t
			if err := w.m.Do(func() error { return unix.Stat(s.Socket, &st) }); err != nil {
				t.Fatal(err)
			}
			mode := uint32(0o660)
			if name == "control" {
				mode = 0o666
			}
			if st.Uid != 0 || st.Gid != base || st.Mode&0o777 != mode {
				t.Errorf("socket of %s: %d:%d %o", name, st.Uid, st.Gid, st.Mode&0o777)
			}
		}
		var st unix.Stat_t
		if err := w.m.Do(func() error { return unix.Stat("/run/vpnd/supervisor.sock", &st) }); err != nil || st.Gid != base || st.Mode&0o777 != 0o660 {
			t.Errorf("supervisor's socket: %d:%d %o, %v", st.Uid, st.Gid, st.Mode&0o777, err)
		}
	})

	t.Run("a second vpnd is refused", func(t *testing.T) {
		before := w.pids()
		w.write("/etc/vpnd2/vpnd.toml", settings+"[paths]\nstate = \"/var/lib/other\"\n", 0o644)
		for _, path := range []string{configPath, "/etc/vpnd2/vpnd.toml"} {
			out, err := w.command("run", "--config", path).CombinedOutput()
			if status(err) != 5 || !bytes.Contains(out, fmt.Appendf(nil, "pid %d", w.cmd.Process.Pid)) {
				t.Errorf("%s: %v: %s", path, err, out)
			}
		}
		if out, err := w.command("teardown", "--config", configPath).CombinedOutput(); status(err) != 5 {
			t.Errorf("teardown under a vpnd that runs: %v: %s", err, out)
		}
		same(t, w.changed(before))
	})

	t.Run("what is wrong changes nothing", func(t *testing.T) {
		before := w.pids()
		for name, tc := range map[string]struct {
			path, text string
			mode       os.FileMode
			code       fault.Code
			says       string
		}{
			"unknown key":      {configPath, settings + "[gateway]\nlissten = []\n", 0o644, fault.Invalid, "gateway.lissten"},
			"other paths":      {configPath, settings + "[paths]\nlog = \"/var/log/x\"\n", 0o644, fault.Conflict, "restart vpnd"},
			"a route is taken": {configPath, settings + "[lanes.vpn]\nipv4 = \"" + network(w) + "\"\n", 0o644, fault.Conflict, "lanes.vpn.ipv4"},
			"no JSON":          {servicesPath, "{", 0o644, fault.Invalid, servicesPath},
			"unknown field":    {servicesPath, `{"services":{"auth":{"sokket":1}}}`, 0o644, fault.Invalid, "services.auth.sokket"},
			"anybody's file":   {servicesPath, `{"services":{"x":{"cmd":["/bin/sh"]}}}`, 0o666, fault.Denied, "can be written by others"},
		} {
			w.write(tc.path, tc.text, tc.mode)
			_, err := w.reload()
			if f := fault.From(err); !errors.Is(err, tc.code) || !strings.Contains(f.Message+f.Hint, tc.says) {
				t.Errorf("%s: %v", name, err)
			}
			w.write(configPath, settings, 0o644)
			w.write(servicesPath, "{}", 0o644)
		}
		if c, err := w.reload(); err != nil || len(c.Unchanged) != len(before) {
			t.Errorf("nothing has changed: %+v, %v", c, err)
		}
		same(t, w.changed(before))
	})

	t.Run("another address", func(t *testing.T) {
		addr := w.m.IPv4().String()
		if err := w.answers(addr + ":4605"); err != nil {
			t.Error(err)
		}
		w.write(configPath, settings+"[gateway]\nlisten = [\"[::]:4606\"]\n", 0o644)
		same(t, w.restarted(), "gateway", "lanes", "sessions")
		if err := w.answers(addr + ":4606"); err != nil {
			t.Error(err)
		}
		if err := w.answers(addr + ":4605"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the old address: %v", err)
		}
		w.write(configPath, settings, 0o644)
		same(t, w.restarted(), "gateway", "lanes", "sessions")
		if err := w.answers(addr + ":4605"); err != nil {
			t.Error(err)
		}
	})

	t.Run("a service of ours with other settings", func(t *testing.T) {
		w.write(servicesPath, `{"services":{"ipam":{"env":{"GODEBUG":"x=1"}}}}`, 0o644)
		same(t, w.restarted(), "ipam")
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.pids()["ipam"]))
		if err != nil || !bytes.Contains(env, []byte("GODEBUG=x=1")) {
			t.Errorf("environment %q, %v", env, err)
		}
		w.write(configPath, settings+"[ipam]\nquarantine = \"1m\"\n", 0o644)
		same(t, w.restarted(), "ipam") // all the same
		w.write(configPath, settings, 0o644)
		w.write(servicesPath, "{}", 0o644)
		same(t, w.restarted(), "ipam")
	})

	t.Run("a service is disabled", func(t *testing.T) {
		w.write(servicesPath, `{"services":{"gateway":{"enabled":false}}}`, 0o644)
		same(t, w.restarted(), "gateway") // its pid is gone
		if s := w.list()["gateway"]; s.State != "disabled" || s.PID != 0 || s.Enabled {
			t.Errorf("got %+v", s)
		}
		if err := w.answers(w.m.IPv4().String() + ":4605"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("its address: %v", err)
		}
		if _, err := supervisor.Start.Call(t.Context(), w.conn, &supervisor.Ref{Service: "gateway"}); fault.ReasonOf(err) != "disabled" {
			t.Errorf("starting it: %v", err)
		}
		w.write(servicesPath, "{}", 0o644)
		same(t, w.restarted(), "gateway")
	})

	t.Run("a program without a heartbeat", func(t *testing.T) {
		w.write(servicesPath, `{"services":{"idler":{"cmd":["`+programPath+`","`+idler+`"],"user":"65534:65534"}}}`, 0o644)
		same(t, w.restarted(), "idler")
		s := w.list()["idler"]
		if s.State != "running" || s.User != "65534:65534" {
			t.Errorf("got %+v", s)
		}
		if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another idler", func() bool {
			now := w.list()["idler"]
			return now.State == "running" && now.PID != s.PID && strings.Contains(now.LastExit, "SIGKILL")
		})
		pid := w.list()["idler"].PID
		w.write(servicesPath, "{}", 0o644)
		if c, err := w.reload(); err != nil || !slices.Equal(c.Stopped, []string{"idler"}) {
			t.Errorf("%+v, %v", c, err)
		}
		if _, listed := w.list()["idler"]; listed || unix.Kill(pid, 0) == nil {
			t.Error("it is there still")
		}
	})

	t.Run("SIGHUP reloads", func(t *testing.T) {
		before := w.pids()
		w.write(configPath, settings+"[log]\nlevel = \"debug\"\n", 0o644)
		if err := w.cmd.Process.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "restarts", func() bool { return len(w.changed(before)) == len(before) })
		w.allReady()
		eventually(t, "word of it", func() bool { return strings.Contains(w.log(), `"event":"reloaded"`) })
		w.write(configPath, "nonsense", 0o644)
		before = w.pids()
		if err := w.cmd.Process.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "word of it", func() bool { return strings.Contains(w.log(), `"level":"ERROR","event":"reload"`) })
		w.write(configPath, settings, 0o644)
		same(t, w.changed(before))
	})

	t.Run("strangers are refused", func(t *testing.T) {
		// The group of services may connect; only control may call.
		for uid, want := range map[uint32]int{base + 1: 200, base + 2: 403, 0: 200} {
			if got := w.callAs(uid, base); got != want {
				t.Errorf("uid %d was answered %d, want %d", uid, got, want)
			}
		}
	})

	t.Run("it ends in order", func(t *testing.T) {
		pids := w.pids()
		seen := len(w.log())
		began := time.Now()
		if err := w.cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-w.ended:
			if err != nil {
				t.Errorf("vpnd ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("vpnd does not end")
		}
		t.Logf("ended after %v", time.Since(began).Round(time.Millisecond))
		for name, pid := range pids {
			if unix.Kill(pid, 0) == nil {
				t.Errorf("%s is left behind", name)
			}
		}
		order := stopped(w.log()[seen:])
		for _, pair := range [][2]string{
			{"control", "gateway"}, {"gateway", "auth"}, {"gateway", "sessions"}, {"auth", "users"}, {"auth", "keys"},
			{"users", "sessions"}, {"sessions", "ipam"}, {"sessions", "lanes"},
		} {
			first, second := slices.Index(order, pair[0]), slices.Index(order, pair[1])
			if first < 0 || second < 0 || first > second {
				t.Errorf("%s is to end before %s: %v", pair[0], pair[1], order)
			}
		}
		if err := w.m.Do(func() error { _, err := os.Stat("/run/vpnd/auth.sock"); return err }); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a socket that nobody is behind: %v", err)
		}
		if out, err := w.command("teardown", "--config", configPath).CombinedOutput(); err != nil {
			t.Errorf("teardown: %v: %s", err, out)
		}
		if out, err := w.command("teardown", "--config", configPath).CombinedOutput(); err != nil {
			t.Errorf("teardown of nothing: %v: %s", err, out)
		}
	})
}

// network is a prefix that the machine reaches by its uplink.
func network(w *world) string {
	p, err := w.m.IPv4().Prefix(24)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.String()
}

func status(err error) int {
	var ee interface{ ExitCode() int }
	if errors.As(err, &ee) {
		return ee.ExitCode()
	}
	return -1
}

// stopped reads out of vpnd's log in which order services ended.
func stopped(log string) []string {
	var out []string
	for line := range strings.Lines(log) {
		var l struct {
			Event, Service, Name string
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Service == "supervisor" && l.Event == "service.stopped" {
			out = append(out, l.Name)
		}
	}
	return out
}

// callAs asks the supervisor for the list under another account, with the
// group of the services, and gives the status.
func (w *world) callAs(uid, gid uint32) int {
	w.t.Helper()
	cmd := w.command(caller, "/run/vpnd/supervisor.sock")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	var n int
	if _, err := fmt.Sscanf(string(out), "HTTP/1.1 %d", &n); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return n
}

const caller = "test-caller"

// call is what the test binary does as caller.
func call(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, c)
	return err
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
