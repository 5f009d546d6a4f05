package daemon

import (
	"context"
	"errors"
	"os"
	"slices"

	api "vpnd/pkg/api/supervisor"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/lanes"
	"vpnd/pkg/supervise"
)

// reload reads the configuration and services.json again. What is wrong with
// them changes nothing; what did not change is not touched.
func (d *daemon) reload(ctx context.Context) (*api.Changes, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	for _, path := range []string{d.configPath, servicesPath(d.configPath)} {
		if err := onlyRoots(path); err != nil {
			return nil, err
		}
	}
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
			d.setLevel(old)
			d.mu.Unlock()
		}
		return nil, err
	}
	return d.changes(ch, fresh), nil
}

// reloadOn reloads at every signal, the way daemons do by custom.
func (d *daemon) reloadOn(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if ch, err := d.reload(ctx); err != nil {
			d.log.Error("reload", "err", err)
		} else {
			d.log.Info("reloaded", "started", ch.Started, "stopped", ch.Stopped, "restarted", ch.Restarted, "updated", ch.Updated)
		}
	}
}

// changes says what Apply did in the words of the operation.
func (d *daemon) changes(ch supervise.Changes, all map[string]supervise.Spec) *api.Changes {
	stopped := slices.Concat(ch.Stopped, ch.Removed)
	slices.Sort(stopped)
	out := &api.Changes{
		Started: orNone(ch.Started), Stopped: orNone(stopped),
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
