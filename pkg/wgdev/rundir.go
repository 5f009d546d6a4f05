//go:build linux

package wgdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// The files of one interface in the run directory:
//
//	NAME.sock  the daemon's socket, 0600
//	NAME.pid   the daemon's process id; the daemon holds a lock on it while it lives
//	NAME.lock  locked while somebody opens or stops the interface
//	NAME.log   the daemon's log, and NAME.log.1 before it
//
// The two lock files are never removed: a lock on a removed file protects nothing.
type runFiles struct{ dir, name string }

func (r runFiles) socket() string { return filepath.Join(r.dir, r.name+".sock") }
func (r runFiles) pid() string    { return filepath.Join(r.dir, r.name+".pid") }
func (r runFiles) lock() string   { return filepath.Join(r.dir, r.name+".lock") }
func (r runFiles) log() string    { return filepath.Join(r.dir, r.name+".log") }

// maxSocketPath is what a Unix socket address holds, less its final zero.
const maxSocketPath = 107

func (r runFiles) prepare() error {
	if !filepath.IsAbs(r.dir) {
		return fault.InvalidField("run_dir", "%q is not an absolute path", r.dir)
	}
	if n := len(r.socket()); n > maxSocketPath {
		return fault.InvalidField("run_dir", "%s is too long for a socket: %d bytes, at most %d", r.socket(), n, maxSocketPath)
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	return nil
}

// errLocked tells that somebody else holds a lock.
var errLocked = errors.New("locked by another process")

// holdLock is held by who opens or stops the interface, one at a time, threads of
// one process included.
func (r runFiles) holdLock() (*os.File, error) {
	f, err := os.OpenFile(r.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", r.lock(), err)
	}
	return f, nil
}

// pollEvery is how often a condition is looked at that nothing announces: a lock
// let go, a socket that begins to answer.
const pollEvery = 5 * time.Millisecond

// waitLock repeats try while somebody else holds the lock, until ctx ends.
func waitLock(ctx context.Context, try func() (*os.File, error)) (*os.File, error) {
	for {
		f, err := try()
		if !errors.Is(err, errLocked) {
			return f, err
		}
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", errLocked, err)
		}
	}
}

func pause(ctx context.Context) error {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// holdPID makes this process the daemon of the interface for as long as the file
// is open. It must not be opened again by the same process: closing any descriptor
// of it would end the hold.
func (r runFiles) holdPID() (*os.File, error) {
	f, err := os.OpenFile(r.pid(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", r.pid(), err)
	}
	// For people: programs ask the kernel who holds it.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write pid file: %w", err)
	}
	return f, nil
}

// daemonPID is the process id of the living daemon, and 0 when there is none. The
// kernel tells it, whatever the file may say.
func (r runFiles) daemonPID() (int, error) {
	f, err := os.OpenFile(r.pid(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("ask who holds %s: %w", r.pid(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	if lock.Pid <= 1 {
		return 0, fmt.Errorf("%s is held by a process that cannot be seen from here", r.pid())
	}
	return int(lock.Pid), nil
}
