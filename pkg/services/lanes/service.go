package lanes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/link"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/wgdev"
)

// DaemonCommand is the subcommand of this program that is wireguard-go; the
// interface, its MTU and the run folder follow.
const DaemonCommand = "wireguard"

// Definition makes the service.
func Definition() service.Definition {
	return service.Definition{Name: "lanes", Build: build}
}

// ConfigFrom picks what lanes needs out of the file.
func ConfigFrom(c config.Config, stateDir, runDir, self string) Config {
	_, port, _ := net.SplitHostPort(c.Gateway.Listen[0]) // validated with the configuration
	n, _ := strconv.ParseUint(port, 10, 16)
	return Config{Lanes: c.Lanes, Tor: c.Tor, ControlPort: uint16(n), StateDir: stateDir, RunDir: runDir, Daemon: []string{self, DaemonCommand}}
}

func build(_ context.Context, env *service.Env) (service.Instance, error) {
	self, err := os.Executable()
	if err != nil {
		return service.Instance{}, err
	}
	l, err := New(ConfigFrom(env.Config, env.StateDir, env.RunDir, self), env.Log, env.Events.Publish)
	if err != nil {
		return service.Instance{}, err
	}
	Register(env.Server, l)
	return service.Instance{Run: l.Run, Ready: l.Ready}, nil
}

// Register serves the operations.
func Register(s *rpc.Server, l *Lanes) {
	rpc.Handle(s, api.Put, func(ctx context.Context, r *api.PutRequest) (*api.Applied, error) {
		return &api.Applied{Epoch: l.epoch}, l.Put(ctx, r.Body)
	})
	rpc.Handle(s, api.Remove, func(ctx context.Context, r *api.RemoveRequest) (*api.Removed, error) {
		last, err := l.Remove(ctx, r.Body.Peers)
		return &api.Removed{Epoch: l.epoch, Last: last}, err
	})
	rpc.Handle(s, api.Sync, func(ctx context.Context, r *api.SyncRequest) (*api.Synced, error) {
		done, err := l.Sync(ctx, r.Body.Peers)
		return &done, err
	})
	rpc.Handle(s, api.Stats, func(ctx context.Context, _ *struct{}) (*api.StatsReply, error) {
		stats, err := l.Stats(ctx)
		e := l.Epoch()
		return &api.StatsReply{Epoch: e.Epoch, Synced: e.Synced, Peers: stats}, err
	})
	rpc.Handle(s, api.Epoch, func(context.Context, *struct{}) (*api.EpochReply, error) {
		e := l.Epoch()
		return &e, nil
	})
	rpc.Handle(s, api.SetTor, func(ctx context.Context, r *api.TorAsk) (*api.TorAnswer, error) {
		a, err := l.SetTor(ctx, r.Body.State, r.Body.Reason, time.Duration(r.Body.Lease)*time.Second)
		return &a, err
	})
	rpc.Handle(s, api.Switch, func(ctx context.Context, r *api.SwitchRequest) (*api.Lane, error) {
		lane, err := l.Switch(ctx, r.Body.Up)
		return &lane, err
	})
	rpc.Handle(s, api.PutCanary, func(ctx context.Context, r *api.CanaryRequest) (*api.CanaryCounts, error) {
		if err := l.PutCanary(ctx, r.Body.PublicKey); err != nil {
			return nil, err
		}
		c, err := l.Canary(ctx)
		return &c, err
	})
	rpc.Handle(s, api.GetCanary, func(ctx context.Context, _ *struct{}) (*api.CanaryCounts, error) {
		c, err := l.Canary(ctx)
		return &c, err
	})
	rpc.Handle(s, api.List, func(context.Context, *struct{}) (*rpc.List[api.Lane], error) {
		list := l.List()
		return &rpc.List[api.Lane]{Items: list, Total: len(list)}, nil
	})
}

// Preflight refuses prefixes that overlap what the host already reaches by
// another interface, and names both.
func Preflight(c config.Config) error {
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	var fields []fault.Field
	for _, l := range []struct {
		name string
		lane config.Lane
	}{{"lanes.vpn", c.Lanes.VPN}, {"lanes.tor", c.Lanes.Tor}} {
		v4, err := links.Overlaps(l.lane.IPv4, c.Lanes.VPN.Interface, c.Lanes.Tor.Interface)
		if err != nil {
			return err
		}
		v6, err := links.Overlaps(l.lane.IPv6, c.Lanes.VPN.Interface, c.Lanes.Tor.Interface)
		if err != nil {
			return err
		}
		for _, r := range v4 {
			fields = append(fields, overlap(l.name+".ipv4", l.lane.IPv4.String(), r))
		}
		for _, r := range v6 {
			fields = append(fields, overlap(l.name+".ipv6", l.lane.IPv6.String(), r))
		}
	}
	if len(fields) == 0 {
		return nil
	}
	lines := make([]string, len(fields))
	for i, f := range fields {
		lines[i] = f.Path + ": " + f.Message
	}
	return fault.New(fault.Conflict, "%s", strings.Join(lines, "\n")).WithFields(fields...).
		WithHint("choose another prefix in vpnd.toml")
}

func overlap(path, prefix string, r link.Route) fault.Field {
	return fault.Field{Path: path, Message: fmt.Sprintf("%s overlaps %s, which this host reaches through %s", prefix, r.Prefix, r.Link)}
}

// RunDaemon is the process that carries one interface's packets where the
// kernel has no WireGuard. args are the interface, its MTU and the run folder.
func RunDaemon(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fault.New(fault.Invalid, "usage: vpnd %s INTERFACE MTU RUNDIR", DaemonCommand)
	}
	mtu, err := strconv.Atoi(args[1])
	if err != nil {
		return fault.InvalidField("mtu", "%q is not a number", args[1])
	}
	return wgdev.RunDaemon(ctx, wgdev.DaemonConfig{Interface: args[0], MTU: mtu, RunDir: args[2]})
}

// Teardown ends the data plane that outlives vpnd: interfaces, wireguard-go,
// the rules.
func Teardown(ctx context.Context, c config.Config, runDir string) error {
	l, err := New(ConfigFrom(c, "/", runDir, ""), nil, nil)
	if err != nil {
		return err
	}
	for _, ln := range l.lanes {
		err = errors.Join(err, wgdev.Stop(ctx, ln.open))
	}
	if err != nil {
		return err // the rules stay as long as an interface does
	}
	for _, ln := range l.lanes {
		err = errors.Join(err, ln.unseal())
		ln.forget()
	}
	return errors.Join(err, l.wall.Remove(ctx))
}
