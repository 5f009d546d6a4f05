package gate

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// markedDialer makes connections that policy routing keeps out of the tunnel.
// Without the right to mark, which then nobody's tunnel needs, they are plain.
func markedDialer(mark uint32) *net.Dialer {
	d := &net.Dialer{}
	if mark == 0 {
		return d
	}
	d.Control = func(_, _ string, raw syscall.RawConn) error {
		var opErr error
		err := raw.Control(func(fd uintptr) {
			opErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
		})
		if errors.Is(opErr, unix.EPERM) {
			opErr = nil
		}
		return errors.Join(err, opErr)
	}
	return d
}
