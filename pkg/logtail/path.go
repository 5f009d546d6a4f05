package logtail

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inode is what the kernel calls a file.
type inode struct{ dev, ino uint64 }

func keyOf(info fs.FileInfo) inode {
	st := info.Sys().(*syscall.Stat_t)
	return inode{uint64(st.Dev), st.Ino}
}

// facts are what lies at a path.
type facts struct {
	key   inode
	mode  uint32
	size  int64
	mtime time.Time
}

func (f facts) is(kind uint32) bool { return f.mode&unix.S_IFMT == kind }

func factsOf(st *unix.Stat_t) facts {
	return facts{inode{uint64(st.Dev), st.Ino}, st.Mode, st.Size, time.Unix(st.Mtim.Unix())}
}

// openat opens a path of which no part is a symbolic link: whoever may write to
// a folder of logs could lead us out of it with one, between two looks.
func openat(path string, flags int) (int, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		switch err {
		case unix.EINTR:
			continue
		case unix.ENOSYS: // before Linux 5.6, where only the last part is guarded
			return unix.Open(path, flags, 0)
		}
		return fd, err
	}
}

// openAt is openat that gives files up when there are no descriptors left.
func (t *tailer) openAt(path string, flags int) (int, error) {
	fd, err := openat(path, flags)
	if (err == unix.EMFILE || err == unix.ENFILE) && t.spare() {
		fd, err = openat(path, flags)
	}
	return fd, err
}

func (t *tailer) stat(path string) (facts, error) {
	fd, err := t.openAt(path, unix.O_PATH)
	if err != nil {
		return facts{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return facts{}, err
	}
	return factsOf(&st), nil
}

// entry is one name in a directory.
type entry struct {
	path string
	facts
}

// list reads a directory, sorted by name. Its own facts come from the same
// descriptor, and what is to be done before reading is done by first.
func (t *tailer) list(dir string, first func(facts) bool) ([]entry, error) {
	fd, err := t.openAt(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if !first(factsOf(&st)) {
		return nil, nil
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	out := make([]entry, 0, len(names))
	for _, name := range names {
		switch serr := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case serr == nil:
			out = append(out, entry{filepath.Join(dir, name), factsOf(&st)})
		case serr != unix.ENOENT && err == nil:
			err = serr
		}
	}
	return out, err
}

// openPath opens a regular file without waiting for anything.
func (t *tailer) openPath(path string) (*os.File, inode, error) {
	raw, err := t.openAt(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, inode{}, err
	}
	fd := os.NewFile(uintptr(raw), path)
	info, err := fd.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errReplaced
	}
	if err != nil {
		_ = fd.Close()
		return nil, inode{}, err
	}
	return fd, keyOf(info), nil
}

// away says whether an error means that nothing of ours has the path.
func away(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// findRefused notes what must not be read: the folders as they are written, as
// they are without links, and each inode below, which a bind mount may show
// elsewhere.
func (t *tailer) findRefused() {
	t.refused, t.refusedPaths = map[inode]bool{}, slices.Clone(t.opts.Refuse)
	for _, r := range t.opts.Refuse {
		dir, err := filepath.EvalSymlinks(r)
		if err != nil {
			continue
		}
		t.refusedPaths = append(t.refusedPaths, dir)
		_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				if info, err := d.Info(); err == nil {
					t.refused[keyOf(info)] = true
				}
			}
			return nil
		})
	}
}

func (t *tailer) refuses(dir string) bool {
	return slices.ContainsFunc(t.refusedPaths, func(r string) bool { return dir == r || strings.HasPrefix(dir, strings.TrimSuffix(r, "/")+"/") })
}

func kind(f facts) string {
	switch f.mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFIFO:
		return "named pipe"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFBLK, unix.S_IFCHR:
		return "device"
	}
	return "not a regular file"
}

func reason(err error) string {
	no, ok := errors.AsType[syscall.Errno](err)
	switch {
	case no == unix.ELOOP:
		return "symbolic link"
	case ok:
		return no.Error()
	}
	return err.Error()
}

// descriptors is how many to keep: of what the process may have, most are for
// others, such as the sink.
func descriptors() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return maxOpen / 8
	}
	return int(cmp.Or(min(r.Cur/4, maxOpen), 1))
}
