//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// newSuffix ends the name of a socket that is being made.
const newSuffix = ".new"

// backlog is how many callers may wait while a service restarts. The kernel
// lowers it to net.core.somaxconn.
const backlog = 4096

// sockets are the listeners of one service. They outlive its processes: a
// caller that comes between two of them waits. Only the service's own
// goroutine uses them.
type sockets struct {
	unix *unixSocket
	tcp  []tcpSocket
}

type unixSocket struct {
	path string
	file *os.File
	id   fileID
}

type tcpSocket struct {
	wanted string // as in Spec.Listen
	actual string
	file   *os.File
}

// fileID says whether a path still leads to the socket bound there.
type fileID struct{ dev, ino uint64 }

func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, err
	}
	return fileID{st.Dev, st.Ino}, nil
}

// open makes the listeners those of s. What is there already is kept, what s
// does not name is closed, and a socket file that somebody removed is made
// again.
func (k *sockets) open(s Spec) error {
	if k.unix != nil && (!s.Inherit || k.unix.path != s.SocketPath || !k.unix.inPlace()) {
		k.unix.close()
		k.unix = nil
	}
	k.tcp = slices.DeleteFunc(k.tcp, func(t tcpSocket) bool {
		if slices.Contains(s.Listen, t.wanted) {
			return false
		}
		t.file.Close()
		return true
	})
	if s.Inherit {
		if err := k.openUnix(s); err != nil {
			return fmt.Errorf("socket %s: %w", s.SocketPath, err)
		}
	}
	inOrder := make([]tcpSocket, 0, len(s.Listen))
	held := k.tcp
	for _, wanted := range s.Listen {
		i := slices.IndexFunc(held, func(t tcpSocket) bool { return t.wanted == wanted })
		if i >= 0 {
			inOrder = append(inOrder, held[i])
			held = slices.Delete(slices.Clone(held), i, i+1)
			continue
		}
		t, err := listenTCP(wanted)
		if err != nil {
			k.tcp = append(inOrder, held...)
			return fmt.Errorf("listen on %s: %w", wanted, err)
		}
		inOrder = append(inOrder, t)
	}
	for _, t := range held { // the same address listed fewer times than before
		t.file.Close()
	}
	k.tcp = inOrder
	return nil
}

func (k *sockets) openUnix(s Spec) error {
	mode, err := socketMode(s.SocketMode)
	if err != nil {
		return err
	}
	uid, gid, err := lookupOwner(s.SocketOwner)
	if err != nil {
		return err
	}
	if k.unix != nil {
		return own(s.SocketPath, mode, uid, gid)
	}
	k.unix, err = listenUnix(s.SocketPath, mode, uid, gid)
	return err
}

func own(path string, mode uint32, uid, gid int) error {
	if uid < 0 {
		uid = os.Geteuid()
	}
	if gid < 0 {
		gid = os.Getegid()
	}
	if err := unix.Lchown(path, uid, gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := unix.Chmod(path, mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

// listenUnix binds beside the path, sets owner and mode, and renames into
// place: nobody can connect to a half-made socket, and one left by a killed
// supervisor is replaced in one step.
func listenUnix(path string, mode uint32, uid, gid int) (_ *unixSocket, err error) {
	if err := ownDirectory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("the path is taken by something that is not a socket")
	}
	fresh := path + newSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file, err := inert(fd, path)
	if err != nil {
		return nil, err
	}
	u := &unixSocket{path: path, file: file}
	defer func() {
		if err != nil {
			u.file.Close()
			os.Remove(fresh)
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fresh}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := own(fresh, mode, uid, gid); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	if u.id, err = identify(fresh); err != nil {
		return nil, err
	}
	return u, os.Rename(fresh, path)
}

// ownDirectory makes the directory of a socket, or checks that nobody but the
// supervisor can put something else in the socket's place.
func ownDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("directory %s can be written by others than uid %d", dir, os.Geteuid())
	}
	return nil
}

func (u *unixSocket) inPlace() bool {
	id, err := identify(u.path)
	return err == nil && id == u.id
}

// close removes the file as well, unless it has become somebody else's.
func (u *unixSocket) close() {
	if u.inPlace() {
		os.Remove(u.path)
	}
	u.file.Close()
}

func listenTCP(wanted string) (tcpSocket, error) {
	addr, err := listenAddr(wanted)
	if err != nil {
		return tcpSocket{}, err
	}
	lc := net.ListenConfig{Control: freebind}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", addr.String())
	if err != nil {
		return tcpSocket{}, err
	}
	defer l.Close() // the copy below is what stays open
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return tcpSocket{}, err
	}
	fd := -1
	ctlErr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(ctlErr, err); err != nil {
		return tcpSocket{}, fmt.Errorf("copy the descriptor: %w", err)
	}
	f, err := inert(fd, wanted)
	return tcpSocket{wanted: wanted, actual: "tcp://" + l.Addr().String(), file: f}, err
}

// freebind lets a listener have an address that no interface has yet: the
// interface may be made by the very services that are about to start.
func freebind(network, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if network == "tcp6" {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}
	})
	return errors.Join(ctlErr, err)
}

// inert wraps a descriptor in a file that the runtime does not poll: the
// supervisor only keeps listeners, and must not wake for every caller.
func inert(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// files are the listeners in the order in which a child gets them.
func (k *sockets) files() (files []*os.File, names []string) {
	if k.unix != nil {
		files, names = append(files, k.unix.file), append(names, "unix")
	}
	for i, t := range k.tcp {
		files, names = append(files, t.file), append(names, fmt.Sprintf("tcp%d", i))
	}
	return files, names
}

// addresses are where callers reach the service.
func (k *sockets) addresses() []string {
	var list []string
	if k.unix != nil {
		list = append(list, k.unix.path)
	}
	for _, t := range k.tcp {
		list = append(list, t.actual)
	}
	return list
}

func (k *sockets) close() {
	if k.unix != nil {
		k.unix.close()
	}
	for _, t := range k.tcp {
		t.file.Close()
	}
	*k = sockets{}
}
