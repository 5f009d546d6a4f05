package auth_test

import (
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/services/auth"
	"vpnd/pkg/services/keys"
	"vpnd/pkg/services/users"
)

// serviceEnv makes this test binary a service.
const serviceEnv = "AUTH_TEST_SERVICE"

func TestMain(m *testing.M) {
	for _, def := range []service.Definition{keys.Definition(), users.Definition(), auth.Definition()} {
		if def.Name != os.Getenv(serviceEnv) {
			continue
		}
		runtime.LockOSThread() // the supervisor sets it for the whole process
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		os.Exit(service.Main(def))
	}
	os.Exit(m.Run())
}

// Every service has a uid of its own, which is how they know each other.
var uids = map[string]uint32{"gateway": 64201, "control": 64202, "keys": 64203, "auth": 64204, "users": 64205, "sessions": 64206}

// table says whom each may be called by.
var table = map[string][]string{
	"keys":     {"gateway", "control", "auth"},
	"users":    {"control", "auth", "sessions"},
	"auth":     {"gateway", "control", "users", "sessions"},
	"sessions": {"auth", "users"},
}

// system is keys, users and auth as processes, with sessions played by the
// test. The test holds the sockets, as a supervisor does, so a service that
// dies refuses nobody.
type system struct {
	dir     string
	cfg     config.Config
	listen  map[string]*net.UnixListener
	running map[string]*process

	mu     sync.Mutex
	closed []sessions.CloseRequest
	block  chan struct{}
}

type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

func newSystem(t *testing.T) *system {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: the services have uids of their own")
	}
	dir, err := os.MkdirTemp("", "auth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &system{dir: dir, cfg: config.Default(), listen: map[string]*net.UnixListener{}, running: map[string]*process{}}
	s.cfg.Server.Endpoint = "vpn.example.org"
	s.cfg.Auth.Argon2 = config.Argon2{MemoryKiB: 64, Time: 1, Threads: 1}
	s.cfg.Auth.Guard = config.Guard{PerAccount: 1000, PerAddress: 1000, Global: 1000, Window: config.Duration(time.Minute)}
	for name := range table {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket(name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if err := os.Chmod(s.socket(name), 0o666); err != nil {
			t.Fatal(err)
		}
		s.listen[name] = l
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), int(uids[name]), int(uids[name])); err != nil {
			t.Fatal(err)
		}
	}
	s.playSessions(t)
	t.Cleanup(func() {
		for name := range s.running {
			s.kill(name)
		}
	})
	return s
}

func (s *system) socket(name string) string { return filepath.Join(s.dir, name+".sock") }

func (s *system) playSessions(t *testing.T) {
	srv := rpc.NewServer(rpc.ServerConfig{Name: "sessions", Identify: func(p rpc.PeerCred) (rpc.Caller, error) {
		for _, name := range table["sessions"] {
			if uids[name] == p.UID {
				return rpc.Caller{Name: name, Access: rpc.Internal}, nil
			}
		}
		return rpc.Caller{}, fault.New(fault.Denied, "uid %d", p.UID)
	}})
	rpc.Handle(srv, sessions.Close, func(ctx context.Context, req *sessions.CloseRequest) (*sessions.ClosedReply, error) {
		s.mu.Lock()
		s.closed = append(s.closed, *req)
		block := s.block
		s.mu.Unlock()
		if block != nil {
			select {
			case <-block:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return &sessions.ClosedReply{Closed: 1}, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx, s.listen["sessions"]) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (s *system) closes() []sessions.CloseRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.closed
	s.closed = nil
	return out
}

// start runs a service as its own user.
func (s *system) start(t *testing.T, name string) {
	t.Helper()
	own := filepath.Join(s.dir, name)
	a := service.Assignment{
		Service: name, StateDir: own, LogDir: own, RunDir: own, Listeners: 1, Config: s.cfg,
		Siblings: map[string]service.Sibling{}, Callers: map[string]uint32{},
	}
	for callee, callers := range table {
		for _, caller := range callers {
			if caller == name {
				a.Siblings[callee] = service.Sibling{Socket: s.socket(callee)}
			}
			if callee == name {
				a.Callers[caller] = uids[caller]
			}
		}
	}
	assignment, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lf, err := s.listen[name].File()
	if err != nil {
		t.Fatal(err)
	}
	defer lf.Close()
	p := &process{cmd: exec.Command("/proc/self/exe"), output: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd.Env = []string{serviceEnv + "=" + name, service.AssignmentEnv + "=4"}
	p.cmd.ExtraFiles = []*os.File{lf, r}
	p.cmd.Dir = own
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uids[name], Gid: uids[name]},
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, werr := w.Write(assignment)
	if err := errors.Join(werr, w.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	s.running[name] = p
	t.Cleanup(func() {
		if t.Failed() {
			s.kill(name)
			t.Logf("%s said:\n%s", name, p.output)
		}
	})
}

func (s *system) kill(name string) {
	p := s.running[name]
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	delete(s.running, name)
}

// as gives a connection to a service whose other end sees the uid of name.
func (s *system) as(t *testing.T, name, callee string) *rpc.Conn {
	t.Helper()
	c := rpc.DialUnix(callee, s.socket(callee), rpc.Options{Dial: func(context.Context) (net.Conn, error) {
		runtime.LockOSThread()
		const same = ^uintptr(0)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uids[name]), same); e != 0 {
			runtime.UnlockOSThread()
			return nil, e
		}
		conn, err := net.Dial("unix", s.socket(callee))
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, 0, same); e != 0 {
			return nil, e // the thread stays locked and ends with its goroutine
		}
		runtime.UnlockOSThread()
		return conn, err
	}})
	t.Cleanup(c.CloseIdle)
	return c
}

// ready tells what the heartbeat of a service says.
func (s *system) ready(name string) bool {
	c, err := net.Dial("unix", s.socket(name))
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, `{"action":"ping"}`+"\n")
	var pong rpc.Pong
	return json.NewDecoder(c).Decode(&pong) == nil && pong.Ready
}

func (s *system) startAll(t *testing.T) {
	t.Helper()
	for _, name := range []string{"auth", "users", "keys"} { // in any order
		s.start(t, name)
	}
	for _, name := range []string{"auth", "users", "keys"} {
		eventually(t, name+" is ready", func() bool { return s.ready(name) })
	}
}

func (s *system) create(t *testing.T, name string) *usersapi.User {
	t.Helper()
	req := &usersapi.CreateRequest{}
	req.Body.Username, req.Body.Email, req.Body.Password = name, name+"@example.org", "password of "+name
	got, err := usersapi.Create.Call(t.Context(), s.as(t, "control", "users"), req)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// sealed is what a client sends: a sign-in sealed to the first published key.
func sealed(t *testing.T, k keysapi.LoginKey, in client.Login) client.Sealed {
	t.Helper()
	plain, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	kem, err := hpke.NewKEM(k.KEM)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := kem.NewPublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	enc, sender, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(client.LoginInfo))
	if err != nil {
		t.Fatal(err)
	}
	ct, err := sender.Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	return client.Sealed{KID: k.KID, Enc: base64.StdEncoding.EncodeToString(enc), Ciphertext: base64.StdEncoding.EncodeToString(ct)}
}

func (s *system) login(t *testing.T, c *rpc.Conn, k keysapi.LoginKey, in client.Login) (*client.Tokens, error) {
	t.Helper()
	req := &authapi.LoginRequest{}
	req.Body.Sealed, req.Body.Remote = sealed(t, k, in), "192.0.2.1"
	return authapi.Login.Call(t.Context(), c, req)
}
