package rpc

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PeerCred is who the kernel says connected.
type PeerCred struct {
	PID    int32
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups at the time of connect
}

// InGroup tells whether the peer's primary or supplementary groups hold gid.
func (p PeerCred) InGroup(gid uint32) bool {
	if p.GID == gid {
		return true
	}
	for _, g := range p.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// peerCred asks the kernel (SO_PEERCRED, SO_PEERGROUPS; unix(7), socket(7)).
func peerCred(c *net.UnixConn) (PeerCred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return PeerCred{}, err
	}
	var cred PeerCred
	var opErr error
	err = raw.Control(func(fd uintptr) {
		u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			opErr = fmt.Errorf("peer credentials: %w", err)
			return
		}
		cred = PeerCred{PID: u.Pid, UID: u.Uid, GID: u.Gid}
		cred.Groups, opErr = peerGroups(int(fd))
	})
	if err == nil {
		err = opErr
	}
	return cred, err
}

func peerGroups(fd int) ([]uint32, error) {
	const maxGroups = 65536 // NGROUPS_MAX
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) <= maxGroups && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		case errno == unix.ERANGE && len(groups) < maxGroups:
			groups = make([]uint32, len(groups)*2)
		default:
			return nil, fmt.Errorf("peer groups: %w", errno)
		}
	}
}
