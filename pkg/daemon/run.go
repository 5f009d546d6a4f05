package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/supervisor"
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
	d := &daemon{configPath: configPath, feed: service.NewEvents(supervisorName)}
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(c.Log.Level)) // validated with the configuration
	d.log = service.NewLogger(os.Stdout, supervisorName, level)
	if err := d.load(c); err != nil {
		return err
	}
	for _, f := range folders(d.config, d.accounts) {
		if err := f.make(); err != nil {
			return err
		}
	}
	lock, err := lockState(c.Paths.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := lanes.Preflight(c); err != nil {
		return err
	}
	if c.Lanes.WireGuard != "kernel" {
		// wireguard-go runs without root and needs the device node all the same.
		if changed, err := wgdev.EnsureTUN(); err != nil {
			d.log.Warn("tun_device_unusable", "err", err)
		} else if changed {
			d.log.Info("tun_device_opened", "mode", "0666")
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
	return nil
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

	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(serveCtx, l) }()
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

func (d *daemon) register(s *rpc.Server) {
	rpc.Handle(s, api.List, func(context.Context, *struct{}) (*rpc.List[api.Service], error) {
		all := d.sup.Status()
		out := &rpc.List[api.Service]{Items: make([]api.Service, 0, len(all)), Total: len(all)}
		for _, st := range all {
			out.Items = append(out.Items, d.describe(st))
		}
		order := map[string]int{}
		for i, e := range table() {
			order[e.name] = i - len(table())
		}
		slices.SortStableFunc(out.Items, func(a, b api.Service) int { return order[a.Name] - order[b.Name] })
		return out, nil
	})
	rpc.Handle(s, api.Get, func(_ context.Context, r *api.Ref) (*api.Service, error) { return d.get(r.Service) })
	verb := func(op rpc.Op[api.Ref, api.Service], do func(context.Context, string) error) {
		rpc.Handle(s, op, func(ctx context.Context, r *api.Ref) (*api.Service, error) {
			if err := do(ctx, r.Service); err != nil {
				return nil, err
			}
			return d.get(r.Service)
		})
	}
	verb(api.Start, d.sup.Start)
	verb(api.Stop, d.sup.Stop)
	verb(api.Restart, d.sup.Restart)
	rpc.Handle(s, api.Reload, func(ctx context.Context, _ *struct{}) (*api.Changes, error) { return d.reload(ctx) })
}

func (d *daemon) get(name string) (*api.Service, error) {
	st, err := d.sup.Get(name)
	if err != nil {
		return nil, err
	}
	out := d.describe(st)
	return &out, nil
}

func (d *daemon) describe(st supervise.Status) api.Service {
	d.mu.Lock()
	spec := d.specs[st.Name]
	d.mu.Unlock()
	out := api.Service{
		Name: st.Name, State: string(st.State), Reason: st.Reason, Since: st.Since, Enabled: st.Enabled, PID: st.PID,
		StartedAt: st.StartedAt, Restarts: st.Restarts, User: spec.User, Socket: spec.SocketPath, Command: spec.Cmd,
		NextStartAt: st.NextRetry, Missed: st.MissedPongs, StderrTail: st.StderrTail,
	}
	out.PingMicros = int64(st.PongLatency) / 1000
	if _, ours := lookup(st.Name); ours && d.config.Users.Mode == "system" {
		out.User = accountName(st.Name)
	}
	if st.LastExit != nil {
		out.LastExit, out.LastExitAt = st.LastExit.Words, &st.LastExit.Time
	}
	return out
}

// reload reads the configuration and services.json again. What is wrong with
// them changes nothing; what did not change is not touched.
func (d *daemon) reload(ctx context.Context) (*api.Changes, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	c, err := config.Load(d.configPath)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	old, oldAccounts, oldSpecs := d.config, d.accounts, d.specs
	d.mu.Unlock()
	if c.Paths != old.Paths || c.Users != old.Users {
		return nil, fault.New(fault.Conflict, "paths and users cannot change while vpnd runs").WithHint("restart vpnd")
	}
	if err := lanes.Preflight(c); err != nil {
		return nil, err
	}
	if err := d.load(c); err != nil {
		return nil, err
	}
	d.mu.Lock()
	fresh := d.specs
	d.mu.Unlock()
	ch, err := d.sup.Apply(ctx, fresh)
	if err != nil {
		if errors.Is(err, fault.Invalid) {
			d.mu.Lock()
			d.config, d.accounts, d.specs = old, oldAccounts, oldSpecs
			d.mu.Unlock()
		}
		return nil, err
	}
	return d.changes(ch, fresh), nil
}

// changes says what Apply did in the words of the operation.
func (d *daemon) changes(ch supervise.Changes, all map[string]supervise.Spec) *api.Changes {
	out := &api.Changes{
		Started: orNone(ch.Started), Stopped: orNone(append(ch.Stopped, ch.Removed...)),
		Restarted: orNone(ch.Restarted), Updated: orNone(ch.Updated), Unchanged: []string{},
	}
	touched := slices.Concat(out.Started, out.Stopped, out.Restarted, out.Updated)
	for name := range all {
		if !slices.Contains(touched, name) {
			out.Unchanged = append(out.Unchanged, name)
		}
	}
	slices.Sort(out.Unchanged)
	return out
}

// orNone makes JSON say [] where there is nothing.
func orNone(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
