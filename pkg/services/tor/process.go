package tor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/durable"
)

// noticeMax is the length, in bytes, at which tor's log is begun anew.
const noticeMax = 1 << 20

// process is one tor process, ours or adopted. Its exported fields are the pid
// file; start time and boot make sure that the number is not somebody else's.
type process struct {
	PID       int          `json:"pid"`
	Start     string       `json:"start"` // field 22 of /proc/PID/stat
	Boot      string       `json:"boot"`
	Torrc     string       `json:"torrc"`     // hash of the text it was told last
	Isolation string       `json:"isolation"` // of its listeners
	Gateways  []netip.Addr `json:"gateways"`
	At        time.Time    `json:"at"`

	adopted bool
	state   *os.ProcessState // of our child, once exited is closed
	exited  chan struct{}    // closed when our child was reaped; nil when adopted
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// startTime is empty for a process that is gone or a zombie.
func startTime(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[19]
}

func (p *process) alive() bool {
	return p.PID > 1 && p.Boot == bootID() && p.Start != "" && startTime(p.PID) == p.Start
}

// start launches tor in a session of its own, tied to us by nothing.
func start(binary string, p paths, text, isolation string, gateways []netip.Addr) (*process, error) {
	if err := os.MkdirAll(p.data(), 0o700); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(p.data(), 0o700), durable.Write(p.torrc(), []byte(text)), durable.Write(p.defaults(), nil)); err != nil {
		return nil, err
	}
	_ = os.Remove(p.socket())
	for _, path := range []string{p.notice(), p.output()} {
		_ = os.Rename(path, path+".1") // what the one before said about its end
	}
	out, err := os.OpenFile(p.output(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(binary, "-f", p.torrc(), "--defaults-torrc", p.defaults())
	cmd.Dir, cmd.Env = p.state, []string{"HOME=" + p.state, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = out, out // stdin is /dev/null
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &process{PID: cmd.Process.Pid, Start: startTime(cmd.Process.Pid), Boot: bootID(), Torrc: hash(text), Isolation: isolation, Gateways: gateways, At: time.Now().UTC(), exited: make(chan struct{})}
	go func() { _ = cmd.Wait(); t.state = cmd.ProcessState; close(t.exited) }()
	if err := durable.WriteJSON(p.pid(), t); err != nil {
		_ = t.stop(syscall.SIGKILL, 5*time.Second)
		return nil, err
	}
	return t, nil
}

// adopt finds the tor of an earlier run: by the pid file or, if the service
// died before that was written, by who listens on the control socket in our
// own folder. Nil when there is none.
func adopt(p paths) *process {
	t := &process{}
	if b, err := os.ReadFile(p.pid()); err == nil && json.Unmarshal(b, t) == nil && t.alive() {
		t.adopted = true
		return t
	}
	c, err := net.DialTimeout("unix", p.socket(), time.Second)
	if err != nil {
		return nil
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	_ = raw.Control(func(fd uintptr) { cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if cred == nil || int(cred.Uid) != os.Getuid() || int(cred.Pid) == os.Getpid() {
		return nil
	}
	t = &process{PID: int(cred.Pid), Start: startTime(int(cred.Pid)), Boot: bootID(), At: time.Now().UTC(), adopted: true}
	if !t.alive() || durable.WriteJSON(p.pid(), t) != nil {
		return nil
	}
	return t
}

// stop sends the signal, then SIGKILL after the patience, and returns when the
// process has ended. No other process is ever hit: the number is held by a
// pidfd before it is checked whose it is.
func (p *process) stop(sig syscall.Signal, patience time.Duration) error {
	h, err := os.FindProcess(p.PID)
	if err != nil || !p.alive() {
		return nil
	}
	defer h.Release()
	for _, s := range []syscall.Signal{sig, syscall.SIGKILL} {
		if err := h.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if !p.alive() {
				return nil
			}
			select {
			case <-p.exited: // nil, never, when adopted
				return nil
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return fmt.Errorf("tor, process %d, does not end", p.PID)
}

// lastWords are what tor said last about its own end: an error, or else a
// warning that is about this run.
func lastWords(p paths) string {
	for _, mark := range []string{"[err] ", "[warn] "} {
		for _, path := range []string{p.notice(), p.output()} {
			if text := lastMarked(path, mark); text != "" {
				return text
			}
		}
	}
	return ""
}

// everyday is what tor warns of in every run, or what points elsewhere.
var everyday = []string{"see warnings above.", "Bug: ", "TestingTorNetwork is set", "DirAuthority or AlternateDirAuthority", "You are running Tor as root"}

func lastMarked(path, mark string) string {
	b, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(b[max(0, len(b)-32<<10):])), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		_, text, ok := strings.Cut(lines[i], mark)
		if ok && (strings.Contains(text, "Assertion") || !slices.ContainsFunc(everyday, func(s string) bool { return strings.Contains(text, s) })) {
			return text
		}
	}
	return ""
}

// end tells how the process ended, or "" when it is not our child.
func (p *process) end() string {
	if p.exited == nil {
		return ""
	}
	<-p.exited // it is not alive any more
	if ws, ok := p.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("%s (signal %d)", ws.Signal(), ws.Signal())
	}
	return p.state.String()
}

// shorten keeps tor's log from growing for ever: what is in it goes into the
// older file once it is long.
func shorten(p paths) error {
	info, err := os.Stat(p.notice())
	if errors.Is(err, os.ErrNotExist) {
		return nil // somebody removed it; tor goes on writing to what was
	}
	if err != nil || info.Size() < noticeMax {
		return err
	}
	data, err := os.ReadFile(p.notice())
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.notice()+".1", data, 0o600); err != nil {
		return err
	}
	return os.Truncate(p.notice(), 0) // tor appends
}
