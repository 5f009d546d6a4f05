//go:build linux

package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// lockFile names the file in RunDir whose lock the running supervisor holds.
// The kernel gives the lock back when the process is gone, however it went.
const lockFile = "supervisor.lock"

func lock(dir string) (unlock func(), err error) {
	if err := ownDirectory(dir); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", dir, err)
	}
	file := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		holder := make([]byte, 16)
		n, _ := f.ReadAt(holder, 0)
		return nil, fault.New(fault.Conflict, "another supervisor (pid %s) runs on %s", strings.TrimSpace(string(holder[:n])), dir).
			WithReason("already_running").WithHint("stop it first, or use another directory")
	}
	// The pid only helps people; a full disk must not keep services down.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	// The file stays: removing it would let a third supervisor lock a new one
	// while a second still waits on the old.
	return func() { f.Close() }, nil
}
