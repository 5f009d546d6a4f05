//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a child finds in its environment besides PATH, LANG and its own
// entries.
const (
	// ListenFDsEnv counts the inherited listeners. They are the descriptors
	// from 3 on: the Unix socket first, where there is one, then Listen in
	// order.
	ListenFDsEnv = "LISTEN_FDS"
	// ListenNamesEnv names them, separated by colons: "unix", "tcp0", "tcp1".
	ListenNamesEnv = "LISTEN_FDNAMES"
	// AssignmentEnv is the number of the descriptor that Deps.Assign's bytes
	// can be read from. It is read-only and at offset 0.
	AssignmentEnv = "VPND_ASSIGNMENT_FD"
)

// SearchPath is the PATH of every child that does not bring its own, and where
// bare program names are looked up.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// child is one process of a service, from fork to exit.
type child struct {
	proc    *os.Process
	started time.Time
	stderr  *output
	pipes   []*output

	exited chan struct{} // closed when exit is set
	exit   Exit

	watch     context.Context // ends when nobody wants to hear of pongs any more
	stopWatch context.CancelFunc
	pongs     chan pong

	// What the heartbeat has shown; the unit's goroutine alone uses these.
	answered     bool
	missed       int
	healthySince time.Time // zero while not ready
	healthyFor   time.Duration
}

// healthy is how long the child has been ready in all.
func (c *child) healthy(now time.Time) time.Duration {
	if c.healthySince.IsZero() {
		return c.healthyFor
	}
	return c.healthyFor + now.Sub(c.healthySince)
}

// launch starts a process of the unit's service. It returns once exec has
// succeeded. Errors are in words for the service's status.
func (u *unit) launch() (*child, error) {
	s := u.spec
	who, err := lookupAccount(s.User, s.Groups)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(s.Capabilities)
	if err != nil {
		return nil, err
	}
	program, err := findProgram(s.Cmd[0])
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(s.Cwd); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("working directory %s does not exist", s.Cwd)
	}
	if err := u.sockets.open(s); err != nil {
		return nil, err
	}
	if err := u.confineTo(caps); err != nil {
		return nil, err
	}

	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	stdout, outW, err := newOutput(u.sup.stdout, 0)
	if err != nil {
		return nil, err
	}
	defer outW.Close()
	stderr, errW, err := newOutput(u.sup.stderr, tailLines)
	if err != nil {
		stdout.abandon()
		return nil, err
	}
	defer errW.Close()

	env := environment(s)
	files := []*os.File{null, outW, errW}
	if listeners, names := u.sockets.files(); len(listeners) > 0 {
		files = append(files, listeners...)
		env = append(env, ListenFDsEnv+"="+strconv.Itoa(len(listeners)), ListenNamesEnv+"="+strings.Join(names, ":"))
	}
	assignment, err := u.assignment()
	if err == nil && assignment != nil {
		defer assignment.Close()
		env = append(env, AssignmentEnv+"="+strconv.Itoa(len(files)))
		files = append(files, assignment)
	}
	var proc *os.Process
	if err == nil {
		proc, err = u.keeper.start(program, s.Cmd, &os.ProcAttr{
			Dir: s.Cwd, Env: env, Files: files,
			Sys: &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups},
				AmbientCaps: caps,
				// A ^C on the supervisor's terminal is for the supervisor,
				// which stops its services in order.
				Setpgid:   true,
				Pdeathsig: syscall.SIGKILL,
			},
		})
	}
	if err != nil {
		stdout.abandon()
		stderr.abandon()
		return nil, startWords(program, who, err)
	}
	c := &child{
		proc: proc, started: time.Now(), stderr: stderr, pipes: []*output{stdout, stderr},
		exited: make(chan struct{}), pongs: make(chan pong),
	}
	c.watch, c.stopWatch = context.WithCancel(context.Background())
	for _, o := range c.pipes {
		u.sup.readOutput(o)
	}
	u.sup.goroutines.Go(c.wait)
	return c, nil
}

// wait collects the process. It does not wait for the end of the pipes: a
// process that the child detached may hold them for ever.
func (c *child) wait() {
	state, err := c.proc.Wait()
	c.exit = Exit{Time: time.Now()}
	if err != nil {
		c.exit.Words = fmt.Sprintf("cannot be waited for: %v", err)
	} else {
		c.exit.of(state)
	}
	close(c.exited)
}

// confineTo makes sure that the unit's keeper has just these capabilities.
func (u *unit) confineTo(caps []uintptr) error {
	if u.keeper != nil && slices.Equal(u.keeper.caps, caps) {
		return nil
	}
	u.closeKeeper()
	k, err := newKeeper(caps)
	if err != nil {
		return err
	}
	u.keeper = k
	return nil
}

func (u *unit) closeKeeper() {
	if u.keeper != nil {
		u.keeper.close()
		u.keeper = nil
	}
}

// environment is PATH, LANG and the service's own entries, sorted.
func environment(s Spec) []string {
	vars := map[string]string{"PATH": SearchPath, "LANG": "C.UTF-8"}
	maps.Copy(vars, s.Env)
	var env []string
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, key+"="+vars[key])
	}
	return env
}

// findProgram gives the path to execute.
func findProgram(name string) (string, error) {
	if filepath.IsAbs(name) {
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			return "", fmt.Errorf("program %s does not exist", name)
		}
		return name, nil
	}
	for _, dir := range filepath.SplitList(SearchPath) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program is called %s in %s", name, SearchPath)
}

func startWords(program string, who account, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("uid %d may not execute %s or enter its working directory: %w", who.uid, program, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s is not a program: %w", program, err)
	}
	return fmt.Errorf("start %s: %w", program, err)
}

// assignment is a sealed memory file with what the service is told, or nil.
func (u *unit) assignment() (*os.File, error) {
	if u.sup.assign == nil {
		return nil, nil
	}
	data, err := u.sup.assign(u.name)
	if err != nil {
		return nil, fmt.Errorf("make the assignment: %w", err)
	}
	if data == nil {
		return nil, nil
	}
	f, err := memoryFile(data)
	if err != nil {
		return nil, fmt.Errorf("write the assignment: %w", err)
	}
	return f, nil
}

func memoryFile(data []byte) (*os.File, error) {
	const name = "assignment"
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
