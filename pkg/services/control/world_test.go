//go:build linux

package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/services/control"
)

// TestMain lets the test binary be two other programs: the control service,
// as the supervisor would start it, and a caller under another account.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("CONTROL_TEST_CALL") != "":
		os.Exit(callAsChild())
	case os.Getenv(service.AssignmentEnv) != "":
		if dir := os.Getenv("CONTROL_TEST_TMPFS"); dir != "" {
			if err := smallDisk(dir); err != nil {
				panic(err)
			}
		}
		// The supervisor does this; it counts for the thread that asks.
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		os.Exit(service.Main(control.Definition()))
	}
	os.Exit(m.Run())
}

// smallDisk gives this process, which is alone in its mount namespace, a disk
// that is easily filled.
func smallDisk(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k")
}

// The groups of the tests exist on every Linux system.
const (
	adminGroup, adminGID = "daemon", 1
	viewGroup, viewGID   = "bin", 2
)

// world is a control service in a process of its own with siblings that the
// test plays.
type world struct {
	t      *testing.T
	dir    string
	socket string
	listen *net.UnixListener
	peers  map[string]service.Sibling
	cmd    *exec.Cmd
	ended  chan struct{} // closed when cmd has ended
	stderr *bytes.Buffer
	fake   *fake
}

// fake answers for all siblings.
type fake struct {
	mu       sync.Mutex
	deleting chan struct{} // when not nil, user.delete waits for it

	down     map[string]bool
	lanes    []lanes.Lane
	tor      tor.Status
	leaks    []canary.Result
	logs     logs.Status
	restarts int
	left     int // followers of logs that have gone away
}

func newWorld(t *testing.T, env ...string) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it calls as other accounts")
	}
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, socket: filepath.Join(dir, "control.sock"), fake: &fake{
		lanes: []lanes.Lane{{Name: lanes.VPN, State: "up"}},
	}}
	w.peers = map[string]service.Sibling{}
	for _, name := range []string{"supervisor", "keys", "users", "auth", "ipam", "sessions", "lanes", "tor", "canary", "gateway", "logs"} {
		w.peers[name] = service.Sibling{Socket: w.fake.serve(t, dir, name)}
	}
	w.listen, err = net.ListenUnix("unix", &net.UnixAddr{Name: w.socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.listen.Close() })
	if err := os.Chmod(w.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.kill(syscall.SIGKILL) })
	w.start(env...)
	return w
}

// start runs the control process on the socket, which stays open between runs.
func (w *world) start(env ...string) {
	w.t.Helper()
	cfg := config.Default()
	cfg.Control = config.Control{AdminGroup: adminGroup, ViewGroup: viewGroup}
	cfg.Server.Endpoint = "vpn.example.org"
	assignment, err := json.Marshal(service.Assignment{
		Service: "control", StateDir: filepath.Join(w.dir, "state"), LogDir: w.dir, RunDir: w.dir,
		Siblings: w.peers, Listeners: 1, Config: cfg,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r, pw, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	lf, err := w.listen.File()
	if err != nil {
		w.t.Fatal(err)
	}
	defer lf.Close()
	defer r.Close()
	w.stderr = &bytes.Buffer{}
	w.cmd = exec.Command("/proc/self/exe")
	w.cmd.Env = append(os.Environ(), append(env, service.AssignmentEnv+"=4")...)
	w.cmd.ExtraFiles = []*os.File{lf, r}
	w.cmd.Stdout, w.cmd.Stderr = w.stderr, w.stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, e := range env {
		if strings.HasPrefix(e, "CONTROL_TEST_TMPFS=") {
			w.cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		}
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := pw.Write(assignment); err != nil {
		w.t.Fatal(err)
	}
	_ = pw.Close()
	cmd, ended := w.cmd, make(chan struct{})
	w.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	eventually(w.t, "an answer", func() bool {
		select {
		case <-ended:
			w.t.Fatalf("control ended: %s", w.stderr)
		default:
		}
		_, _, err := raw(w.socket, "GET", "/v1/version", "")
		return err == nil
	})
}

func (w *world) kill(sig syscall.Signal) {
	if w.cmd != nil {
		_ = w.cmd.Process.Signal(sig)
		<-w.ended
		w.cmd = nil
	}
	if w.t.Failed() && w.stderr != nil && w.stderr.Len() > 0 {
		w.t.Logf("control said: %s", w.stderr)
	}
}

func (w *world) conn() *rpc.Conn { return rpc.DialUnix("control", w.socket, rpc.Options{}) }

func (f *fake) serve(t *testing.T, dir, name string) string {
	t.Helper()
	s := rpc.NewServer(rpc.ServerConfig{Name: name, Identify: func(rpc.PeerCred) (rpc.Caller, error) {
		return rpc.Caller{Name: "control", Access: rpc.Internal}, nil
	}, Guard: func(ctx context.Context, op rpc.Info, _ rpc.Request) (context.Context, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.down[name] && op.ID != events.Feed.ID {
			return ctx, fault.New(fault.Unavailable, "%s is pretending", name)
		}
		return ctx, nil
	}})
	feed := newFeed()
	f.mu.Lock()
	if f.down == nil {
		f.down = map[string]bool{}
	}
	f.mu.Unlock()
	rpc.HandleStream(s, events.Feed, feed.serve)
	t.Cleanup(feed.end)
	feedsMu.Lock()
	feeds[dir+name] = feed
	feedsMu.Unlock()

	switch name {
	case "supervisor":
		list := rpc.List[supervisor.Service]{Total: 1, Items: []supervisor.Service{{Name: "users", State: "ready", Enabled: true, Command: []string{"x"}}}}
		rpc.Handle(s, supervisor.List, answer[struct{}](list))
		rpc.Handle(s, supervisor.Get, answer[supervisor.Ref](list.Items[0]))
		rpc.Handle(s, supervisor.Start, answer[supervisor.Ref](list.Items[0]))
		rpc.Handle(s, supervisor.Stop, answer[supervisor.Ref](list.Items[0]))
		rpc.Handle(s, supervisor.Restart, func(context.Context, *supervisor.Ref) (*supervisor.Service, error) {
			f.mu.Lock()
			f.restarts++
			f.mu.Unlock()
			return &list.Items[0], nil
		})
		rpc.Handle(s, supervisor.Reload, answer[struct{}](supervisor.Changes{}))
	case "keys":
		rpc.Handle(s, keys.Status, answer[struct{}](keys.StatusReply{Ready: true}))
		rpc.Handle(s, keys.TLSCertificate, answer[struct{}](keys.Certificate{Pin: "sha256/abc="}))
	case "users":
		alice := users.User{ID: "usr_a", Username: "alice", Status: users.Active}
		rpc.Handle(s, users.ListUsers, answer[users.ListRequest](rpc.List[users.User]{Items: []users.User{alice}, Total: 1}))
		rpc.Handle(s, users.Get, answer[users.Ref](alice))
		rpc.Handle(s, users.Create, func(_ context.Context, r *users.CreateRequest) (*users.User, error) {
			if r.Body.Username == "taken" {
				return nil, fault.New(fault.Exists, "user %q exists", r.Body.Username)
			}
			return &users.User{ID: "usr_b", Username: r.Body.Username, Status: users.Active}, nil
		})
		rpc.Handle(s, users.Set, answer[users.SetRequest](alice))
		rpc.Handle(s, users.SetPassword, answer[users.PasswordRequest](rpc.None{}))
		rpc.Handle(s, users.Suspend, answer[users.Ref](alice))
		rpc.Handle(s, users.Activate, answer[users.Ref](alice))
		rpc.Handle(s, users.Delete, func(context.Context, *users.Ref) (*rpc.None, error) {
			f.mu.Lock()
			wait := f.deleting
			f.mu.Unlock()
			if wait != nil {
				<-wait
			}
			return &rpc.None{}, nil
		})
	case "auth":
		rpc.Handle(s, auth.DeviceList, answer[auth.DeviceListRequest](rpc.List[auth.Device]{}))
		rpc.Handle(s, auth.DeviceGet, answer[auth.DeviceRef](auth.Device{ID: "dev_a"}))
		rpc.Handle(s, auth.DeviceDelete, answer[auth.DeviceRef](rpc.None{}))
	case "ipam":
		rpc.Handle(s, ipam.Status, answer[struct{}](ipam.StatusReply{}))
		rpc.Handle(s, ipam.Leases, answer[ipam.ListRequest](rpc.List[ipam.Lease]{}))
	case "sessions":
		rpc.Handle(s, sessions.List, answer[sessions.ListRequest](rpc.List[sessions.Session]{}))
		rpc.Handle(s, sessions.Get, answer[sessions.Ref](sessions.Session{ID: "ses_a", State: sessions.Online}))
		rpc.Handle(s, sessions.Kill, answer[sessions.Ref](sessions.Session{ID: "ses_a", State: sessions.Closed}))
		rpc.Handle(s, sessions.History, answer[sessions.HistoryRequest](rpc.List[sessions.Session]{}))
		rpc.Handle(s, sessions.ReleaseLease, answer[sessions.LeaseRef](rpc.None{}))
		rpc.Handle(s, sessions.GetOverview, answer[struct{}](sessions.Overview{Online: 2, Synced: true}))
	case "lanes":
		rpc.Handle(s, lanes.List, func(context.Context, *struct{}) (*rpc.List[lanes.Lane], error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return &rpc.List[lanes.Lane]{Total: len(f.lanes), Items: f.lanes}, nil
		})
		rpc.Handle(s, lanes.Switch, answer[lanes.SwitchRequest](lanes.Lane{Name: lanes.VPN}))
	case "tor":
		rpc.Handle(s, tor.GetStatus, func(context.Context, *struct{}) (*tor.Status, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			st := f.tor
			return &st, nil
		})
		rpc.Handle(s, tor.SetWish, answer[tor.WishRequest](tor.Status{}))
		rpc.Handle(s, tor.Start, answer[struct{}](tor.Status{}))
		rpc.Handle(s, tor.Stop, answer[struct{}](tor.Status{}))
		rpc.Handle(s, tor.ListCircuits, answer[struct{}](rpc.List[tor.Circuit]{}))
		rpc.Handle(s, tor.GetCircuit, answer[tor.CircuitRef](tor.Circuit{}))
		rpc.Handle(s, tor.CloseCircuit, answer[tor.CircuitRef](rpc.None{}))
		rpc.Handle(s, tor.ListStreams, answer[struct{}](rpc.List[tor.Stream]{}))
		rpc.Handle(s, tor.NewID, answer[tor.NewIDRequest](tor.NewIDReply{}))
		rpc.Handle(s, tor.ListExits, answer[struct{}](rpc.List[tor.Choice]{}))
		rpc.Handle(s, tor.SetExit, answer[tor.ExitRequest](tor.ExitReply{}))
		rpc.Handle(s, tor.ClearExit, answer[tor.UserRef](rpc.None{}))
		rpc.Handle(s, tor.ListRelays, answer[tor.RelayRequest](rpc.List[tor.Relay]{}))
		rpc.Handle(s, tor.ListBridges, answer[struct{}](rpc.List[tor.Bridge]{}))
		rpc.Handle(s, tor.AddBridge, answer[tor.BridgeRequest](tor.Bridge{}))
		rpc.Handle(s, tor.RemoveBridge, answer[tor.BridgeRef](rpc.None{}))
		rpc.Handle(s, tor.TestBridge, answer[tor.BridgeRef](tor.BridgeTest{}))
		rpc.Handle(s, tor.UseBridges, answer[tor.BridgeUse](tor.Status{}))
		rpc.Handle(s, tor.SetIsolation, answer[tor.IsolationRequest](tor.Status{}))
		rpc.Handle(s, tor.ListOnions, answer[struct{}](rpc.List[tor.Onion]{}))
		rpc.Handle(s, tor.RunCheck, answer[struct{}](tor.Check{}))
	case "canary":
		rpc.Handle(s, canary.Run, answer[canary.RunRequest](canary.Result{}))
		rpc.Handle(s, canary.Last, func(context.Context, *struct{}) (*rpc.List[canary.Result], error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return &rpc.List[canary.Result]{Total: len(f.leaks), Items: f.leaks}, nil
		})
	case "logs":
		rpc.Handle(s, logs.Query, answer[logs.QueryRequest](rpc.List[logs.Record]{}))
		rpc.Handle(s, logs.Count, answer[logs.Ask](logs.Number{}))
		rpc.Handle(s, logs.Stats, answer[logs.StatsRequest](rpc.List[logs.Group]{}))
		rpc.Handle(s, logs.Top, answer[logs.TopRequest](rpc.List[logs.Group]{}))
		rpc.Handle(s, logs.Histogram, answer[logs.HistogramRequest](rpc.List[logs.Bucket]{}))
		rpc.Handle(s, logs.Fields, answer[logs.Ask](rpc.List[logs.Field]{}))
		rpc.Handle(s, logs.Services, answer[logs.Ask](rpc.List[logs.ServiceLines]{}))
		rpc.HandleStream(s, logs.Export, func(_ context.Context, req *logs.Ask, send func(logs.Record) error) error {
			if req.Query == "(" {
				return fault.InvalidField("query", "column 1: what is this")
			}
			err := errors.Join(send(logs.Record{ID: "1", Message: req.Query}), send(logs.Record{ID: "2"}))
			if req.Query == "abort" {
				panic(http.ErrAbortHandler)
			}
			return err
		})
		rpc.HandleStream(s, logs.Follow, func(ctx context.Context, req *logs.FollowRequest, send func(logs.Record) error) error {
			if err := send(logs.Record{ID: req.Since, Missed: 3}); err != nil || req.Since == "" {
				return err
			}
			<-ctx.Done()
			f.mu.Lock()
			f.left++
			f.mu.Unlock()
			return nil
		})
		rpc.Handle(s, logs.ListSaved, answer[struct{}](rpc.List[logs.Saved]{}))
		rpc.Handle(s, logs.Save, answer[logs.SaveRequest](logs.Saved{}))
		rpc.Handle(s, logs.RunSaved, answer[logs.SavedRef](logs.Saved{}))
		rpc.Handle(s, logs.DeleteSaved, answer[logs.SavedRef](rpc.None{}))
		rpc.Handle(s, logs.Purge, func(_ context.Context, r *logs.PurgeRequest) (*logs.Purged, error) {
			return &logs.Purged{Rows: 7, DryRun: r.Body.DryRun}, nil
		})
		rpc.Handle(s, logs.GetStatus, func(context.Context, *struct{}) (*logs.Status, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			st := f.logs
			return &st, nil
		})
	}
	path := filepath.Join(dir, name+".sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-ended })
	return path
}

func answer[Req, Resp any](r Resp) func(context.Context, *Req) (*Resp, error) {
	return func(context.Context, *Req) (*Resp, error) { return &r, nil }
}

// feed is a sibling's feed that the test writes.
type feed struct {
	mu      sync.Mutex
	list    []events.Event
	changed chan struct{}
	cut     chan struct{} // closed to break the connections
	asked   []string
}

var (
	feedsMu sync.Mutex
	feeds   = map[string]*feed{}
)

func newFeed() *feed { return &feed{changed: make(chan struct{}), cut: make(chan struct{})} }

func (w *world) feed(name string) *feed {
	feedsMu.Lock()
	defer feedsMu.Unlock()
	return feeds[w.dir+name]
}

func (f *feed) publish(e ...events.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, e...)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *feed) interrupt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.cut)
	f.cut = make(chan struct{})
}

func (f *feed) end() { f.interrupt() }

func (f *feed) serve(ctx context.Context, req *events.FeedRequest, send func(events.Event) error) error {
	f.mu.Lock()
	f.asked = append(f.asked, req.Since)
	cut, at := f.cut, 0
	for i, e := range f.list {
		if string(e.ID) == req.Since {
			at = i + 1
		}
	}
	f.mu.Unlock()
	for {
		f.mu.Lock()
		batch, changed := f.list[at:], f.changed
		at = len(f.list)
		f.mu.Unlock()
		for _, e := range batch {
			if err := send(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-cut:
			return nil
		case <-changed:
		}
	}
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("not within 10 s: %s", what)
}

// raw makes one HTTP call without our client.
func raw(socket, method, target, body string) (int, []byte, error) {
	c := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://vpnd"+target, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, data, err
}

// account is who a child calls as.
type account struct {
	uid, gid uint32
	groups   []uint32
}

type reply struct {
	Status int
	Body   string
}

// callAs makes calls ("METHOD /path") from a process of that account.
func (w *world) callAs(a account, calls ...string) []reply {
	w.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"CONTROL_TEST_CALL=" + strings.Join(calls, "\n"), "CONTROL_TEST_SOCKET=" + w.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("call as %+v: %v: %s", a, err, stderr.String())
	}
	var replies []reply
	if err := json.Unmarshal(out, &replies); err != nil {
		w.t.Fatalf("call as %+v: %v: %s", a, err, out)
	}
	return replies
}

func callAsChild() int {
	var replies []reply
	for call := range strings.SplitSeq(os.Getenv("CONTROL_TEST_CALL"), "\n") {
		method, target, _ := strings.Cut(call, " ")
		target, body, _ := strings.Cut(target, " ")
		status, data, err := raw(os.Getenv("CONTROL_TEST_SOCKET"), method, target, body)
		if err != nil {
			data = []byte(err.Error())
		}
		replies = append(replies, reply{status, string(data)})
	}
	if err := json.NewEncoder(os.Stdout).Encode(replies); err != nil {
		return 1
	}
	return 0
}
