//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remove unmounts and deletes a named namespace; a missing one is no error.
func Remove(name string) error {
	path := filepath.Join(Dir, name)
	if err := unmount(path); err != nil {
		return err
	}
	err := os.Remove(path)
	if errors.Is(err, unix.EBUSY) {
		if err = unmountHidden(name); err != nil {
			return fmt.Errorf("unmount what is hidden below %s: %w", path, err)
		}
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mountsMax bounds the mounts taken off one path: somebody may mount faster.
const mountsMax = 100

// unmount takes away everything that is mounted on path.
func unmount(path string) error {
	for range mountsMax {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == unix.EINVAL || err == unix.ENOENT: // not, or no longer, a mount
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return fmt.Errorf("unmount %s: %w", path, unix.EBUSY)
}

// unmountHidden unmounts what no path leads to. `ip netns add` binds Dir over
// itself, with copies of the mounts in it; the originals stay on the directory
// below and keep the file busy. A file handle leads there: opened on the mount
// that Dir's parent is in, it crosses no mount point.
func unmountHidden(name string) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, Dir, 0)
	if err != nil {
		return err
	}
	parent, err := unix.Open(filepath.Dir(Dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	below, err := unix.OpenByHandleAt(parent, handle, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	return unmount(fmt.Sprintf("/proc/self/fd/%d/%s", below, name))
}
