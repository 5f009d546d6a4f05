package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

// folder is a directory that vpnd needs.
type folder struct {
	path     string
	uid, gid uint32
	service  bool // one service's own; otherwise root's, for everybody to pass through
	read     bool // its group may read, and gets the files that come to be in it
}

// folders lists them, parents first, and begins with those that are locked.
// Every service has its own, which no other can enter; into the log folders,
// the supervisor's too, the log service can look.
func folders(c config.Config, a accounts) []folder {
	parents := []string{c.Paths.State, c.Paths.Run, c.Paths.Log}
	var out []folder
	for _, p := range parents {
		out = append(out, folder{path: p})
	}
	ofService := func(parent, name string, uid, gid uint32) folder {
		f := folder{path: filepath.Join(parent, name), uid: uid, gid: gid, service: true}
		if parent == c.Paths.Log && parent != c.Paths.State && parent != c.Paths.Run {
			f.gid, f.read = a.gid[logReader], true
		}
		return f
	}
	for _, e := range table() {
		for _, p := range parents {
			out = append(out, ofService(p, e.name, a.uid[e.name], a.gid[e.name]))
		}
	}
	return append(out, ofService(c.Paths.Log, supervisorName, 0, 0))
}

// make makes the folder. One of a service that exists gets its mode and owner;
// one of root's has to be root's own already, whoever made it. A symbolic link
// in its place is refused: somebody else put it there.
func (f folder) make() error {
	fresh := true
	err := os.Mkdir(f.path, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(f.path), 0o755); err == nil {
			err = os.Mkdir(f.path, 0o700)
		}
	}
	if errors.Is(err, os.ErrExist) {
		fresh, err = false, nil
	}
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "cannot make %s", f.path)
	}
	fd, err := unix.Open(f.path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(err, fault.Conflict, "%s is not a folder", f.path).WithHint("move it away")
	}
	defer unix.Close(fd)
	mode := uint32(0o700)
	if !f.service {
		mode = 0o755
		if !fresh {
			return f.checkRoots(fd)
		}
	}
	if f.read {
		mode = unix.S_ISGID | 0o750
	}
	if err := unix.Fchown(fd, int(f.uid), int(f.gid)); err != nil {
		return fmt.Errorf("own %s: %w", f.path, err)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("protect %s: %w", f.path, err)
	}
	return nil
}

// checkRoots refuses a folder in which others could put something in the place
// of ours. It might be anybody's, so it is not simply taken over.
func (f folder) checkRoots(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at %s: %w", f.path, err)
	}
	if st.Uid == 0 && st.Mode&0o022 == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "%s can be written by others than root", f.path).
		WithHint("give vpnd a folder of its own, or: chown root %[1]s && chmod 755 %[1]s", f.path)
}

// own makes the state and run folders and locks them: two vpnds must not share
// either. The locks end with the process, however it ends.
func own(c config.Config) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			_ = f.Close()
		}
	}
	dirs := slices.Compact([]string{filepath.Clean(c.Paths.State), filepath.Clean(c.Paths.Run)})
	for _, dir := range dirs {
		err = folder{path: dir}.make()
		var f *os.File
		if err == nil {
			f, err = lock(dir)
		}
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, f)
	}
	return unlock, nil
}

func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "vpnd.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := make([]byte, 16)
		n, _ := f.ReadAt(pid, 0) // it is only for the message
		_ = f.Close()
		return nil, fault.Wrap(err, fault.Conflict, "vpnd runs already on %s (pid %s)", dir, pid[:n]).
			WithHint("'vpnctl status' shows it; stop it first, or give this one other paths")
	}
	// The number is only for messages: a full disk is no reason not to start.
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Appendf(nil, "%d", os.Getpid()), 0)
	return f, nil
}
