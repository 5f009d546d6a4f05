//go:build linux

package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
)

type textReq struct {
	Body struct {
		Text string `json:"text"`
	}
}

type textResp struct {
	Text string `json:"text"`
}

var say = rpc.Op[textReq, textResp]{Info: rpc.Info{ID: "say", Method: "POST", Path: "/v1/say", Access: rpc.Internal}}

// roleEnv makes the test binary a service that misbehaves in some way.
const roleEnv = "SERVICE_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	// The supervisor does this; it counts for the thread that asks.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if dir := os.Getenv("SERVICE_TEST_TMPFS"); dir != "" {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k")); err != nil {
			panic(err)
		}
	}
	os.Exit(service.Main(definition(role)))
}

// definition is a service that does what its caller says.
func definition(role string) service.Definition {
	return service.Definition{Name: "echo", Build: func(ctx context.Context, env *service.Env) (service.Instance, error) {
		note := func(s string) { fmt.Fprintln(os.Stderr, s) }
		switch role {
		case "unbuildable":
			return service.Instance{}, fault.New(fault.Conflict, "the database is of a later version").WithHint("update vpnd")
		case "slow":
			time.Sleep(300 * time.Millisecond) // a start that takes its time is what is tested
		}
		var busy sync.WaitGroup
		rpc.Handle(env.Server, say, func(ctx context.Context, r *textReq) (*textResp, error) {
			busy.Add(1)
			defer busy.Done()
			switch word, arg, _ := strings.Cut(r.Body.Text, " "); word {
			case "gogc":
				old := debug.SetGCPercent(50)
				return &textResp{fmt.Sprint(old)}, nil
			case "log":
				env.Log.Info(arg, "pad", strings.Repeat("x", 1000))
			case "hold":
				note("holding")
				time.Sleep(300 * time.Millisecond) // the drain has to wait for it
				return &textResp{"held"}, nil
			case "sibling":
				_, err := say.Call(ctx, env.Sibling(arg), r)
				return nil, err
			case "extra":
				return &textResp{fmt.Sprint(len(env.Extra), " ", env.Extra[0].Addr().Network())}, nil
			case "socket":
				fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)
				if err == nil {
					_ = unix.Close(fd)
				}
				return &textResp{fmt.Sprint(err)}, nil
			}
			return &textResp{rpc.CallerFrom(ctx).Name}, nil
		})
		inst := service.Instance{Run: func(ctx context.Context) error {
			if role == "short" {
				return errors.New("the disk is gone")
			}
			<-ctx.Done()
			busy.Wait()
			note("work ends")
			return ctx.Err()
		}}
		if role == "unready" {
			inst.Ready = func() error { return errors.New("keys are missing") }
		}
		return inst, nil
	}}
}

// process is a running service with what the supervisor gives it.
type process struct {
	t      *testing.T
	dir    string
	socket string
	cmd    *exec.Cmd
	out    lockedBuffer
	err    lockedBuffer
	ended  chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, role string, change func(*service.Assignment), env ...string) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir(), ended: make(chan error, 1)}
	p.socket = filepath.Join(p.dir, "echo.sock")
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	extra, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	a := service.Assignment{
		Service: "echo", StateDir: p.dir, LogDir: p.dir, RunDir: p.dir, Listeners: 2, Config: config.Default(),
		Callers: map[string]uint32{"tester": uint32(os.Getuid())},
	}
	if change != nil {
		change(&a)
	}
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lf, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer lf.Close()
	ef, err := extra.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer ef.Close()
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(append(os.Environ(), roleEnv+"="+role, service.AssignmentEnv+"=5", "GORACE=atexit_sleep_ms=0"), env...)
	p.cmd.ExtraFiles = []*os.File{lf, ef, r}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if len(env) > 0 && env[0] == "SERVICE_TEST_ACCOUNT=own" {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ownAccount, Gid: ownAccount}}
	}
	if len(env) > 0 && strings.HasPrefix(env[0], "SERVICE_TEST_TMPFS") {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() { p.ended <- p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("it said: %s%s", &p.out, &p.err)
		}
	})
	return p
}

func (p *process) say(text string) (string, error) {
	conn := rpc.DialUnix("echo", p.socket, rpc.Options{})
	defer conn.CloseIdle()
	req := &textReq{}
	req.Body.Text = text
	resp, err := say.Call(p.t.Context(), conn, req)
	if err != nil {
		return "", err
	}
	return resp.Text, nil
}

func (p *process) mustSay(text string) string {
	p.t.Helper()
	got, err := p.say(text)
	if err != nil {
		p.t.Fatal(err)
	}
	return got
}

func (p *process) ping() string {
	p.t.Helper()
	c, err := net.Dial("unix", p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, `{"action":"ping"}`+"\n"); err != nil {
		p.t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(got))
}

// exit waits for the end and gives the exit status.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case err := <-p.ended:
		if ee, ok := errors.AsType[*exec.ExitError](err); ok {
			return ee.ExitCode()
		}
		if err != nil {
			p.t.Fatal(err)
		}
		return 0
	case <-time.After(20 * time.Second):
		p.t.Fatal("it does not end")
		return -1
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAServiceTakesOverWhatItIsGiven(t *testing.T) {
	p := start(t, "well", nil)
	if got := p.mustSay("who"); got != "tester" {
		t.Errorf("caller %q", got)
	}
	if got := p.mustSay("gogc"); got != "50" {
		t.Errorf("GOGC is %s", got)
	}
	if got := p.mustSay("extra"); got != "1 tcp" {
		t.Errorf("further listeners: %s", got)
	}
	if got := p.mustSay("socket"); got != unix.EPERM.Error() {
		t.Errorf("a netlink socket: %s", got)
	}
	if _, err := p.say("sibling users"); !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "echo may not call users") {
		t.Errorf("a sibling that is not its own: %v", err)
	}
	if got := p.ping(); got != `{"status":"pong","ready":true}` {
		t.Errorf("ping: %s", got)
	}
	eventually(t, "a line in both logs", func() bool {
		file, _ := os.ReadFile(filepath.Join(p.dir, "echo.log"))
		return strings.Contains(string(file), `"event":"started"`) && strings.Contains(p.out.String(), `"event":"started"`)
	})
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	p.mustSay("who")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.exit(); status != 0 || !strings.Contains(p.out.String(), `"event":"stopped"`) {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Stat(p.socket); err != nil {
		t.Errorf("the socket is the supervisor's, and gone: %v", err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	p := start(t, "well", func(a *service.Assignment) { a.Callers = map[string]uint32{"auth": 12345} })
	if _, err := p.say("who"); !errors.Is(err, fault.Denied) || fault.From(err).Hint != "use control.sock" {
		t.Errorf("got %v", err)
	}
	if got := p.ping(); got != `{"status":"pong","ready":true}` {
		t.Errorf("the supervisor is no caller: %s", got)
	}
}

func TestReadinessIsTheServicesOwnWord(t *testing.T) {
	p := start(t, "unready", nil)
	if got := p.ping(); got != `{"status":"pong","ready":false,"reason":"keys are missing"}` {
		t.Errorf("ping: %s", got)
	}
	p.mustSay("who") // calls are answered all the same
}

func TestCallsWaitForAServiceThatIsStarting(t *testing.T) {
	p := start(t, "slow", nil)
	began := time.Now()
	pong := make(chan string, 1)
	go func() { pong <- p.ping() }()
	p.mustSay("who")
	if d := time.Since(began); d < 200*time.Millisecond {
		t.Errorf("answered after %v: before it was built", d)
	}
	if got := <-pong; got != `{"status":"pong","ready":true}` {
		t.Errorf("ping: %s", got)
	}
}

func TestTheWorkOutlivesTheCalls(t *testing.T) {
	p := start(t, "well", nil)
	result := make(chan error, 1)
	go func() {
		got, err := p.say("hold")
		if err == nil && got != "held" {
			err = errors.New(got)
		}
		result <- err
	}()
	eventually(t, "the call", func() bool { return strings.Contains(p.err.String(), "holding") })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("a call under way: %v", err)
	}
	if status := p.exit(); status != 0 || !strings.Contains(p.err.String(), "work ends") {
		t.Errorf("exit status %d", status)
	}
}

func TestWhyAServiceDoesNotStartIsTold(t *testing.T) {
	for name, tc := range map[string]struct {
		role   string
		change func(*service.Assignment)
		env    []string
		want   []string
	}{
		"cannot be built":   {role: "unbuildable", want: []string{"echo: the database is of a later version", "echo: update vpnd"}},
		"work ends early":   {role: "short", want: []string{"echo: the disk is gone"}},
		"another's":         {role: "well", change: func(a *service.Assignment) { a.Service = "users" }, want: []string{`assigned to "users"`}},
		"no sockets":        {role: "well", change: func(a *service.Assignment) { a.Listeners = 0 }, want: []string{"no socket was inherited"}},
		"no assignment":     {role: "well", env: []string{service.AssignmentEnv + "="}, want: []string{"services are started by 'vpnd run'"}},
		"bad descriptor":    {role: "well", env: []string{service.AssignmentEnv + "=99"}, want: []string{"read assignment"}},
		"standard input":    {role: "well", env: []string{service.AssignmentEnv + "=0"}, want: []string{"services are started by 'vpnd run'"}},
		"not an assignment": {role: "well", env: []string{service.AssignmentEnv + "=3"}, want: []string{"read assignment"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, tc.role, tc.change, tc.env...)
			if status := p.exit(); status != 1 {
				t.Errorf("exit status %d", status)
			}
			for _, want := range tc.want {
				if !strings.Contains(p.err.String(), want) {
					t.Errorf("it said %q, want %q", p.err.String(), want)
				}
			}
		})
	}
}

// Accounts that nobody has.
const ownAccount, readerAccount = 1_900_012_345, 1_900_012_346

// TestTheGroupOfTheLogFolderReadsEveryLogFile runs a service under an account
// of its own, in a log folder as the supervisor makes it.
func TestTheGroupOfTheLogFolderReadsEveryLogFile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it gives folders away")
	}
	dir, err := os.MkdirTemp("", "logdir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// A file of an earlier version, of the service's own group.
	old := filepath.Join(dir, "echo.log")
	if err := errors.Join(os.WriteFile(old, []byte("old\n"), 0o600), os.Chown(old, ownAccount, ownAccount),
		os.Chown(dir, ownAccount, readerAccount), os.Chmod(dir, 0o750|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	p := start(t, "well", func(a *service.Assignment) { a.LogDir, a.Config.Log.MaxSize = dir, 1 }, "SERVICE_TEST_ACCOUNT=own")
	for range 2200 { // of a KiB and more each: two rotations
		p.mustSay("log line")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) != 4 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		var st unix.Stat_t
		if err := unix.Stat(f, &st); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) == "old\n" {
			if st.Gid != ownAccount || f == old {
				t.Errorf("the old file is %s of group %d", f, st.Gid)
			}
			continue
		}
		if st.Uid != ownAccount || st.Gid != readerAccount || st.Mode&0o7777 != 0o640 {
			t.Errorf("%s is %d:%d %o", f, st.Uid, st.Gid, st.Mode&0o7777)
		}
	}
	for account, want := range map[uint32]bool{readerAccount: true, readerAccount + 1: false} {
		cmd := exec.Command("cat", old)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account, Gid: account}}
		if out, err := cmd.Output(); (err == nil && len(out) > 0) != want {
			t.Errorf("group %d: %v, %d bytes", account, err, len(out))
		}
	}
}

func TestAFullDiskStopsNothing(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "well", func(a *service.Assignment) { a.LogDir = dir }, "SERVICE_TEST_TMPFS="+dir)
	const lines = 100 // of more than a KiB; the disk takes about 60
	for i := range lines {
		p.mustSay(fmt.Sprint("log line ", i))
	}
	eventually(t, "every line on stdout", func() bool { return strings.Count(p.out.String(), `"event":"line `) == lines })
	inside := filepath.Join(fmt.Sprintf("/proc/%d/root", p.cmd.Process.Pid), dir)
	file := filepath.Join(inside, "echo.log")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	// Room comes back: somebody shortens the file.
	if err := os.Truncate(file, 5000); err != nil {
		t.Fatal(err)
	}
	p.mustSay("log after")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimRight(string(data), "\n\x00"), "\n")
	last := got[len(got)-2:]
	var lost struct {
		Event string `json:"event"`
		Lost  int    `json:"lost"`
	}
	if err := json.Unmarshal([]byte(strings.Trim(last[0], "\x00")), &lost); err != nil || lost.Event != "log_lines_lost" || lost.Lost < 10 {
		t.Errorf("%v: %q", err, last[0])
	}
	if !strings.Contains(last[1], `"event":"after"`) || !json.Valid([]byte(last[1])) {
		t.Errorf("the last line is %q", last[1])
	}
}
