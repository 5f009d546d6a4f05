package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/client/profile"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// dirs are where the agent's files lie. There is one tunnel and so one agent to a
// machine: root's folders are the machine's. An agent that has CAP_NET_ADMIN
// without being root uses the user's.
type dirs struct {
	run   string // socket and lock
	state string // journal and log
}

const (
	rootRun   = "/run/vpn-client"
	rootState = "/var/lib/vpn-client"

	socketName = "agent.sock"
	lockFile   = "agent.lock"
	logFile    = "agent.log"
)

// findDirs gives the folders of the agent that this process would start.
func findDirs() (dirs, error) {
	if os.Geteuid() == 0 || os.Getenv("XDG_RUNTIME_DIR") == "" || !canAdmin() {
		return dirs{run: rootRun, state: rootState}, nil
	}
	loc, err := profile.Locate()
	if err != nil {
		return dirs{}, err
	}
	return dirs{run: filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "vpn-client"), state: loc.Path()}, nil
}

func (d dirs) socket() string { return filepath.Join(d.run, socketName) }

// agentLog is where to look when the agent does odd things.
func agentLog() string {
	d, err := findDirs()
	if err != nil {
		return logFile
	}
	return filepath.Join(d.state, logFile)
}

// findAgent gives a connection to the machine's agent, nil when none runs.
func findAgent(ctx context.Context) (*rpc.Conn, error) {
	d, err := findDirs()
	if err != nil {
		return nil, err
	}
	for _, socket := range []string{d.socket(), filepath.Join(rootRun, socketName)} {
		var dial net.Dialer
		c, err := dial.DialContext(ctx, "unix", socket)
		switch {
		case err == nil:
			_ = c.Close()
			// Every call is made once: an agent that is gone does not come back.
			return rpc.DialUnix("agent", socket, rpc.Options{Patience: -1}), nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		default:
			return nil, fault.Wrap(err, fault.Denied, "the agent cannot be asked")
		}
	}
	return nil, nil
}

// canAdmin tells whether this process may change interfaces and routes.
func canAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

func needPrivileges(what, command string) error {
	if canAdmin() {
		return nil
	}
	return fault.New(fault.Denied, "%s needs root (or CAP_NET_ADMIN)", what).WithHint("try: %s", command)
}

// lock keeps a second agent away, and who clears up after a dead one. It ends
// with the process.
func (d dirs) lock() (unlock func(), ok bool, err error) {
	for _, dir := range []string{d.run, d.state} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, false, fault.Wrap(err, fault.Denied, "cannot make %s", dir)
		}
	}
	f, err := os.OpenFile(filepath.Join(d.run, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fault.Wrap(err, fault.Denied, "cannot write in %s", d.run)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("lock %s: %w", d.run, err)
	}
	return func() { _ = f.Close() }, true, nil
}

func waitForLock(ctx context.Context, d dirs) (unlock func(), err error) {
	for {
		unlock, ok, err := d.lock()
		if err != nil || ok {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "another vpn command is changing the machine").WithHint("try again when it has ended")
		case <-time.After(agentGone):
		}
	}
}

// lockPatience is how long a new agent waits for one that is ending. It is less
// than startPatience, so that the error that it ends in is heard.
const lockPatience = 5 * time.Second

// startPatience is how long a new agent may take to open its socket.
const startPatience = 10 * time.Second

// startReport is what a new agent writes to its descriptor 3: nothing but an end
// of file when all is well.
type startReport struct {
	Code    fault.Code `json:"code"`
	Reason  string     `json:"reason"`
	Message string     `json:"message"`
	Hint    string     `json:"hint"`
}

// reasonRunning is that of an agent that finds another one.
const reasonRunning = "already_running"

// startAgent starts the agent as a session of its own, which outlives this
// process, and gives a connection to it.
func startAgent(ctx context.Context) (*rpc.Conn, error) {
	if err := needPrivileges("bringing the tunnel up", "sudo vpn up"); err != nil {
		return nil, err
	}
	d, err := findDirs()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find my own program: %w", err)
	}
	if err := os.MkdirAll(d.state, 0o755); err != nil {
		return nil, fault.Wrap(err, fault.Denied, "cannot make %s", d.state)
	}
	log, err := openLog(filepath.Join(d.state, logFile))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(exe, "agent")
	cmd.Dir = "/"
	// Descriptors of a file, not pipes: nobody is there to read them later.
	cmd.Stdout, cmd.Stderr = log.file, log.file
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	defer func() { _ = cmd.Process.Release() }()
	_ = r.SetReadDeadline(time.Now().Add(startPatience))
	b, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return nil, fault.Wrap(err, fault.Timeout, "the agent does not start").WithHint("see its log: %s", agentLog())
	}
	var rep startReport
	if len(b) > 0 && (json.Unmarshal(b, &rep) != nil || rep.Reason != reasonRunning) {
		if rep.Code == "" {
			rep.Code, rep.Message = fault.Unavailable, "the agent did not start"
		}
		return nil, fault.New(rep.Code, "%s", rep.Message).WithReason(rep.Reason).WithHint("%s", rep.Hint)
	}
	// Another command may have started one just before, and it may not listen yet.
	for deadline := time.Now().Add(startPatience); ; {
		conn, err := findAgent(ctx)
		if err != nil || conn != nil {
			return conn, err
		}
		if time.Now().After(deadline) {
			return nil, fault.New(fault.Unavailable, "the agent ended at once").WithHint("see its log: %s", agentLog())
		}
		select {
		case <-ctx.Done():
			return nil, fault.From(ctx.Err())
		case <-time.After(agentGone):
		}
	}
}
