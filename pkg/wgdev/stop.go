//go:build linux

package wgdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
)

// stopGrace is how long a daemon may take to end by itself.
const stopGrace = 5 * time.Second

// Stop ends the data plane of an interface: its daemon, if it has one, and the
// interface itself with its addresses and routes. Only interfaces that Open makes
// are deleted. It is no error when nothing is there.
func Stop(ctx context.Context, cfg OpenConfig) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	files := cfg.files()
	lock, err := waitLock(ctx, files.holdLock)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := stopDaemon(ctx, files); err != nil {
		return fmt.Errorf("stop the WireGuard process of %s: %w", cfg.Interface, err)
	}
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	state, err := links.Get(cfg.Interface)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if state.Kind != link.KindTUN && state.Kind != link.KindWireGuard {
		return fault.New(fault.Conflict, "interface %s is not a WireGuard device and is left alone", cfg.Interface)
	}
	return links.Delete(cfg.Interface)
}

// stopDaemon ends the process that holds the pid file, once the socket, if it
// answers, says the same: a wrong pid file must not end a stranger.
func stopDaemon(ctx context.Context, files runFiles) error {
	pid, err := files.daemonPID()
	if err != nil || pid == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The descriptor pins the process; only now does asking who it is prove much.
	if again, err := files.daemonPID(); err != nil || again != pid {
		return err // it has just ended
	}
	switch conn, err := dialUAPI(ctx, files.socket()); {
	case err == nil:
		listener := conn.pid
		_ = conn.close()
		if int(listener) != pid {
			return fault.New(fault.Conflict, "%s names process %d, but %s is served by %d", files.pid(), pid, files.socket(), listener)
		}
	case !errors.Is(err, ErrGone):
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if err := waitExit(ctx, fd, stopGrace); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if err := waitExit(ctx, fd, stopGrace); err != nil {
			return err
		}
	}
	if err := os.Remove(files.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// waitExit waits until the process behind a pidfd has ended.
func waitExit(ctx context.Context, fd int, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("process did not end: %w", err)
		}
	}
}
