package wgdev

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrGone tells that a device is not there any more: the process behind it has
// died, or was replaced by one that knows none of our peers, or its interface was
// deleted. Open makes the device work again; its configuration, its peers and the
// settings of its interface must then be given anew.
var ErrGone = errors.New("the WireGuard device is gone")

// uapiError turns the errno of a text protocol answer into an error. The
// numbers are errno values with a minus sign, so errors.Is(err, syscall.EADDRINUSE)
// holds where it should.
func uapiError(errno int64) error {
	if errno < 0 {
		errno = -errno
	}
	e := syscall.Errno(errno)
	text := map[syscall.Errno]string{
		syscall.EADDRINUSE: "the UDP port cannot be used",
		syscall.EINVAL:     "a value was not accepted",
		syscall.EPROTO:     "the request was not understood",
		syscall.EIO:        "the request was not read to its end",
	}[e]
	if text == "" {
		return fmt.Errorf("wireguard answered: %w", e)
	}
	return fmt.Errorf("wireguard answered: %s: %w", text, e)
}
