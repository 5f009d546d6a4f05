package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/events"
	"vpnd/pkg/build"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/services/lanes"
	"vpnd/pkg/supervise"
	"vpnd/pkg/wgdev"
)

// daemon is a running vpnd.
type daemon struct {
	configPath string
	self       string
	log        *slog.Logger
	sup        *supervise.Supervisor
	feed       *service.Events

	level slog.LevelVar

	reloading sync.Mutex
	mu        sync.Mutex // guards the rest
	config    config.Config
	accounts  accounts
	specs     map[string]supervise.Spec
}

// Run is the supervisor: it makes the folders, opens the sockets, starts every
// service and keeps them running until ctx ends.
func Run(ctx context.Context, configPath string) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Denied, "vpnd run needs root: it opens sockets for services and lets them drop to their own accounts")
	}
	c, err := config.Load(configPath)
	if err != nil {
		return err
	}
	for _, path := range []string{configPath, servicesPath(configPath)} {
		if err := onlyRoots(path); err != nil {
			return err
		}
	}
	unix.Umask(0o022) // whatever the shell had: what services pass through must be passable
	d := &daemon{configPath: configPath, feed: service.NewEvents(supervisorName)}
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	if err := d.load(c); err != nil {
		return err
	}
	unlock, err := own(c)
	if err != nil {
		return err
	}
	defer unlock()
	for _, f := range folders(c, d.accounts) {
		if err := f.make(); err != nil {
			return err
		}
	}
	log, closeLog := service.OpenLog(filepath.Join(c.Paths.Log, supervisorName), supervisorName, c.Log, &d.level)
	defer closeLog()
	d.log = log
	if err := lanes.Preflight(c); err != nil {
		return err
	}
	if c.Lanes.WireGuard != "kernel" {
		// wireguard-go runs without root and needs the device node all the same.
		if changed, err := wgdev.EnsureTUN(); err != nil {
			d.log.Warn("tun_device.unusable", "err", err)
		} else if changed {
			d.log.Info("tun_device.opened", "mode", "0666")
		}
	}
	d.sup, err = supervise.New(
		supervise.Config{Services: d.specs, RunDir: filepath.Join(c.Paths.Run, "supervisor")},
		supervise.Deps{Log: d.log, Assign: d.assign},
	)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

// load computes accounts and specs for a configuration.
func (d *daemon) load(c config.Config) error {
	a, err := resolve(c)
	if err != nil {
		return err
	}
	base, err := builtin(c, a, d.self)
	if err != nil {
		return err
	}
	s, err := specs(base, servicesPath(d.configPath))
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config, d.accounts, d.specs = c, a, s
	d.setLevel(c)
	return nil
}

func (d *daemon) setLevel(c config.Config) {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(c.Log.Level)) // validated with the configuration
	d.level.Set(level)
}

func (d *daemon) assign(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return assignment(d.config, d.accounts, d.specs[name], name)
}

func (d *daemon) run(ctx context.Context) error {
	l, err := d.listen()
	if err != nil {
		return err
	}
	srv := rpc.NewServer(rpc.ServerConfig{
		Name: supervisorName, Version: build.Get().Version, Log: d.log, Identify: d.identify,
	})
	rpc.HandleStream(srv, events.Feed, d.feed.Feed)
	d.register(srv)

	changes, stop := d.sup.Subscribe()
	defer stop()
	go d.publish(changes)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	defer signal.Stop(hangup)

	// Its operations end after the services, and everything with them.
	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	ctx, stopAll := context.WithCancel(ctx)
	defer stopAll()
	served := make(chan error, 1)
	go func() {
		served <- srv.Serve(serveCtx, l)
		stopAll()
	}()
	go d.reloadOn(ctx, hangup)
	d.log.Info("started", "version", build.Get().Version, "pid", os.Getpid(), "config", d.configPath)
	err = d.sup.Run(ctx)
	stopServing()
	err = errors.Join(err, <-served)
	d.log.Info("stopped")
	return err
}

// listen opens supervisor.sock; a stale one of a killed supervisor is replaced,
// which the lock on the state makes safe.
func (d *daemon) listen() (net.Listener, error) {
	path := socketPath(d.config, supervisorName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(path, 0, int(d.accounts.all)); err != nil {
		return nil, fmt.Errorf("own %s: %w", path, err)
	}
	return l, os.Chmod(path, 0o660)
}

// identify admits control, and root, who can do all this anyway and may have
// to when control does not run.
func (d *daemon) identify(p rpc.PeerCred) (rpc.Caller, error) {
	d.mu.Lock()
	controlUID := d.accounts.uid["control"]
	d.mu.Unlock()
	switch p.UID {
	case controlUID:
		return rpc.Caller{Name: "control", Access: rpc.Internal}, nil
	case 0:
		return rpc.Caller{Name: "root", Access: rpc.Admin}, nil
	}
	return rpc.Caller{}, fault.New(fault.Denied, "uid %d may not call the supervisor", p.UID).WithHint("use control.sock")
}

func (d *daemon) publish(changes <-chan supervise.Event) {
	for e := range changes {
		d.feed.Publish(events.Event{
			Type: "service." + string(e.State), Reason: e.Reason, Missed: uint64(e.Dropped),
			Data: map[string]string{"service": e.Service, "was": string(e.Was)},
		})
	}
}
