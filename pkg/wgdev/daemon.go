//go:build linux

package wgdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"

	"vpnd/pkg/fault"
)

// DaemonConfig is what a daemon needs to know. Interface, MTU and RunDir are the
// same as in the OpenConfig that starts it.
type DaemonConfig struct {
	Interface string
	MTU       int
	RunDir    string // absolute
	LogSize   int64  // bytes before the log is put aside; zero means 1 MiB
}

const defaultLogSize = 1 << 20

// RunDaemon is a whole process: it makes the interface, or takes over the
// persistent one that a dead daemon left, and carries its packets until ctx ends,
// SIGTERM or SIGINT comes or the interface is deleted. It holds no configuration of its own:
// key, port and peers come over the socket, and after a restart come anew.
//
// It is meant to outlive everything around it. It ignores SIGHUP and
// SIGPIPE, logs to a file that it opens itself, and leaves the interface behind,
// which then swallows packets instead of letting them take another way.
//
// It changes process-wide state (signals, umask, working directory), so nothing
// else may run in the process.
func RunDaemon(ctx context.Context, cfg DaemonConfig) error {
	if err := checkInterface(cfg.Interface, cfg.MTU); err != nil {
		return err
	}
	files := runFiles{cfg.RunDir, cfg.Interface}
	if err := files.prepare(); err != nil {
		return err
	}
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	unix.Umask(0o077)
	if err := os.Chdir("/"); err != nil {
		return err
	}

	if cfg.LogSize <= 0 {
		cfg.LogSize = defaultLogSize
	}
	logs, err := openLog(files.log(), cfg.LogSize)
	if err != nil {
		return err
	}
	defer logs.Close()
	logger := log.New(logs, "", log.LstdFlags|log.LUTC|log.Lmsgprefix)

	err = runDevice(ctx, cfg, files, logger)
	if err != nil {
		logger.Printf("ended: %v", err)
		return err
	}
	logger.Printf("ended")
	return nil
}

func runDevice(ctx context.Context, cfg DaemonConfig, files runFiles, logger *log.Logger) error {
	pidFile, err := waitPID(ctx, files)
	if err != nil {
		return err
	}
	defer pidFile.Close()

	dev, err := newDevice(cfg.Interface, cfg.MTU, true, &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   logger.Printf,
	})
	if err != nil {
		return err
	}
	defer dev.Close()

	// Who holds the pid file is the only daemon, so an old socket is stale.
	if err := os.Remove(files.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	listener, err := net.Listen("unix", files.socket())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(files.socket(), 0o600); err != nil { // the umask kept others out so far
		_ = listener.Close()
		return err
	}
	var conns sync.WaitGroup
	defer conns.Wait()
	served := serve(listener, dev, &conns)
	defer listener.Close()
	logger.Printf("process %d carries %s", os.Getpid(), cfg.Interface)

	select {
	case <-ctx.Done():
		return nil
	case <-dev.Wait():
		return fmt.Errorf("interface %s is gone", cfg.Interface)
	case err := <-served:
		return fmt.Errorf("accept: %w", err)
	}
}

// waitPID takes the pid file. A dying predecessor gets a moment to let go.
func waitPID(ctx context.Context, files runFiles) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, tunBusy)
	defer cancel()
	f, err := waitLock(ctx, files.holdPID)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fault.Wrap(err, fault.Conflict, "another process carries %s already", files.name)
	}
	return f, err
}

// serve answers connections until the listener closes, and tells when accepting
// fails for good. Closing the listener closes the connections.
func serve(l net.Listener, dev *device.Device, conns *sync.WaitGroup) <-chan error {
	failed := make(chan error, 1)
	closing := make(chan struct{})
	conns.Go(func() {
		defer close(closing)
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			handled := make(chan struct{})
			conns.Go(func() {
				defer close(handled)
				dev.IpcHandle(c) // closes c
			})
			conns.Go(func() {
				select {
				case <-handled:
				case <-closing:
					_ = c.Close()
				}
			})
		}
	})
	return failed
}
