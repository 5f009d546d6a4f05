package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

// folder is a directory that vpnd needs.
type folder struct {
	path     string
	mode     os.FileMode
	uid, gid uint32
}

// folders lists them, parents first. Every service has its own, which no other
// can enter.
func folders(c config.Config, a accounts) []folder {
	out := []folder{
		{c.Paths.State, 0o755, 0, 0},
		{c.Paths.Run, 0o755, 0, 0},
		{c.Paths.Log, 0o755, 0, 0},
	}
	for _, e := range table() {
		for _, parent := range []string{c.Paths.State, c.Paths.Run, c.Paths.Log} {
			out = append(out, folder{filepath.Join(parent, e.name), 0o700, a.uid[e.name], a.gid[e.name]})
		}
	}
	return out
}

// make makes the folder, or gives an existing one its mode and owner. A
// symbolic link in its place is refused: somebody else put it there.
func (f folder) make() error {
	err := os.Mkdir(f.path, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(f.path), 0o755); err == nil {
			err = os.Mkdir(f.path, 0o700)
		}
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fault.Wrap(err, fault.Unavailable, "cannot make %s", f.path)
	}
	fd, err := unix.Open(f.path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(err, fault.Conflict, "%s is not a folder", f.path).WithHint("move it away")
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, int(f.uid), int(f.gid)); err != nil {
		return fmt.Errorf("own %s: %w", f.path, err)
	}
	if err := unix.Fchmod(fd, uint32(f.mode)); err != nil {
		return fmt.Errorf("protect %s: %w", f.path, err)
	}
	return nil
}

// lockState keeps a second vpnd away from the same state. The lock ends with
// the process, however it ends.
func lockState(dir string) (*os.File, error) {
	path := filepath.Join(dir, "vpnd.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := make([]byte, 16)
		n, _ := f.ReadAt(pid, 0) // it is only for the message
		_ = f.Close()
		return nil, fault.Wrap(err, fault.Conflict, "vpnd runs already on %s (pid %s)", dir, pid[:n]).
			WithHint("'vpnctl status' shows it; stop it first, or give this one another paths.state")
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d", os.Getpid()), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock state: %w", err)
	}
	return f, nil
}
