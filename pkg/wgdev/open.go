//go:build linux

package wgdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
)

// Prefer says which back end Open may choose.
type Prefer string

// The choices. The zero value means PreferAuto.
const (
	PreferAuto      Prefer = "auto"
	PreferKernel    Prefer = "kernel"
	PreferUserspace Prefer = "userspace"
)

// OpenConfig says which device to open.
type OpenConfig struct {
	Interface string
	MTU       int
	RunDir    string   // absolute; made when missing
	Daemon    []string // program and arguments that end up in RunDaemon
	Prefer    Prefer
}

func (c OpenConfig) validate() error {
	if err := checkInterface(c.Interface, c.MTU); err != nil {
		return err
	}
	switch c.Prefer {
	case "", PreferAuto, PreferKernel, PreferUserspace:
	default:
		return fault.InvalidField("prefer", "%q is not auto, kernel or userspace", c.Prefer)
	}
	return c.files().prepare()
}

func (c OpenConfig) files() runFiles { return runFiles{c.RunDir, c.Interface} }

// startTimeout bounds the wait for a daemon to answer; it needs some 20 ms.
const startTimeout = 10 * time.Second

// Open opens the device of an interface and makes it when there is none. What is
// there already is kept, whatever Prefer says of new ones: a WireGuard link of the
// kernel, or a TUN with its daemon (Stop ends either). Otherwise, unless Prefer is
// userspace, the kernel is asked; and where it has no WireGuard, unless Prefer is
// kernel, a daemon is started in a session of its own, with its output in a file
// of RunDir.
//
// A new device, and one whose daemon had to be started again, has no key and no
// peers; Info tells by a zero PublicKey. Two processes may call Open at once: one
// makes the device and both get it.
//
// Open needs CAP_NET_ADMIN; a process that is not root must have it in its ambient
// set or be able to put it there, and the daemon inherits it. The device belongs to
// the network namespace of the calling thread.
func Open(ctx context.Context, cfg OpenConfig) (*Device, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lock, err := waitLock(ctx, cfg.files().holdLock)
	if err != nil {
		return nil, err
	}
	defer lock.Close()

	kernel, err := chooseKernel(cfg)
	if err != nil {
		return nil, err
	}
	if kernel {
		drv, err := openKernel(cfg.Interface)
		if err != nil {
			return nil, err
		}
		return &Device{name: cfg.Interface, backend: Kernel, drv: drv}, nil
	}
	drv, err := openDaemon(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Device{name: cfg.Interface, backend: Userspace, drv: drv}, nil
}

// chooseKernel tells whether the interface is, or now has become, one of the
// kernel's WireGuard.
func chooseKernel(cfg OpenConfig) (bool, error) {
	links, err := link.Open()
	if err != nil {
		return false, err
	}
	defer links.Close()
	state, err := links.Get(cfg.Interface)
	switch {
	case err == nil && state.Kind == link.KindWireGuard:
		return true, nil
	case err == nil && state.Kind == link.KindTUN:
		return false, nil
	case err == nil:
		return false, fault.New(fault.Conflict, "interface %s exists and is not a WireGuard device", cfg.Interface).
			WithHint("choose another interface name, or remove it with `ip link del %s`", cfg.Interface)
	case !errors.Is(err, fault.NotFound):
		return false, err
	case cfg.Prefer == PreferUserspace:
		return false, nil
	}
	err = links.CreateWireGuard(cfg.Interface)
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, link.ErrNotSupported):
		return false, err
	case cfg.Prefer == PreferKernel:
		return false, fault.Wrap(err, fault.Unavailable, "this kernel has no WireGuard").
			WithHint("load the module (modprobe wireguard), or let vpnd use its own process")
	}
	return false, nil
}

// openDaemon connects to the daemon, started first when none lives.
func openDaemon(ctx context.Context, cfg OpenConfig) (*uapiConn, error) {
	files := cfg.files()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var exited <-chan struct{} // nil until we started one
	for {
		drv, err := dialUAPI(ctx, files.socket())
		if err == nil {
			// It listens; now let it answer.
			if _, err = drv.read(ctx); err == nil {
				return drv, nil
			}
			_ = drv.close()
		}
		if !errors.Is(err, ErrGone) && ctx.Err() == nil {
			return nil, fmt.Errorf("open %s: %w", cfg.Interface, err)
		}
		// A daemon that does not answer may be starting, or dying.
		pid, pidErr := files.daemonPID()
		if pidErr != nil {
			return nil, fmt.Errorf("look for the daemon of %s: %w", cfg.Interface, pidErr)
		}
		if pid == 0 && exited == nil && ctx.Err() == nil {
			if exited, err = startDaemon(cfg); err != nil {
				return nil, err
			}
		}
		select {
		case <-exited:
			return nil, fault.New(fault.Unavailable, "the WireGuard process of %s ended at once: %s", cfg.Interface, lastLine(files.log())).
				WithHint("its log is %s", files.log())
		default:
		}
		if pause(ctx) != nil {
			return nil, fault.Wrap(err, fault.Unavailable, "the WireGuard process of %s does not answer", cfg.Interface).
				WithHint("its log is %s", files.log())
		}
	}
}

// startDaemon starts the daemon and reaps it when it ends, should this process
// live to see it. The channel is closed then.
func startDaemon(cfg OpenConfig) (<-chan struct{}, error) {
	if len(cfg.Daemon) == 0 {
		return nil, fault.InvalidField("daemon", "interface %s needs a WireGuard process, and no program is given", cfg.Interface)
	}
	path := cfg.files().log()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of the WireGuard process: %w", err)
	}
	defer out.Close()
	// A descriptor that this process inherited, such as a listening socket, must
	// not live on in a process that is not stopped with it.
	if err := keepDescriptors(); err != nil {
		return nil, err
	}
	cmd := exec.Command(cfg.Daemon[0], cfg.Daemon[1:]...)
	cmd.Dir = "/"
	// Files, never pipes: the daemon outlives whoever would read them. A nil Stdin
	// is /dev/null.
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the WireGuard process of %s: %w", cfg.Interface, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	return exited, nil
}

// keepDescriptors marks all descriptors but the first three as not for children.
func keepDescriptors() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("keep descriptors back: %w", err)
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// lastLine is the end of a log, for an error message.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "it left no log"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return "its log " + filepath.Base(path) + " is empty"
}
