//go:build linux

package supervise

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Changes tells what an Apply did, each list sorted by name.
type Changes struct {
	Started   []string `json:"started,omitempty"`   // new, or enabled again
	Restarted []string `json:"restarted,omitempty"` // changed
	Stopped   []string `json:"stopped,omitempty"`   // disabled
	Removed   []string `json:"removed,omitempty"`   // no longer listed: stopped and forgotten
	Updated   []string `json:"updated,omitempty"`   // changed while stopped by request or disabled; not started
}

// Empty says that nothing had changed.
func (c Changes) Empty() bool {
	return len(c.Started)+len(c.Restarted)+len(c.Stopped)+len(c.Removed)+len(c.Updated) == 0
}

// Apply makes services the set that is supervised and touches only what
// differs. It returns when that is done: what had to stop has ended, what had
// to start answers or has died. The error then says which did not start; the
// new set is in force all the same. Invalid input (fault.Invalid, every problem
// listed) changes nothing.
func (s *Supervisor) Apply(ctx context.Context, services map[string]Spec) (Changes, error) {
	if err := (&problems{fields: Validate(services)}).err(); err != nil {
		return Changes{}, err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := s.alive(); err != nil {
		return Changes{}, err
	}
	s.mu.Lock()
	before := maps.Clone(s.units)
	s.mu.Unlock()

	var c Changes
	stopping, replacing := map[string]*unit{}, map[string]*unit{}
	for name, u := range before {
		spec, listed := services[name]
		was, halted := u.wanted()
		switch {
		case !listed:
			c.Removed = append(c.Removed, name)
		case was.same(spec):
		case !spec.IsEnabled() && was.IsEnabled():
			c.Stopped = append(c.Stopped, name)
			stopping[name] = u
		default:
			replacing[name] = u
			switch {
			case !spec.IsEnabled() || halted && was.IsEnabled():
				c.Updated = append(c.Updated, name)
			case !was.IsEnabled():
				c.Started = append(c.Started, name)
			default:
				c.Restarted = append(c.Restarted, name)
			}
		}
	}
	// What goes, goes first: a new service may want its socket.
	errs := []error{s.forget(before, c.Removed), s.disable(ctx, stopping, services)}
	fresh := s.add(services)
	for name := range fresh {
		if services[name].IsEnabled() {
			c.Started = append(c.Started, name)
		} else {
			c.Updated = append(c.Updated, name)
		}
	}

	var mu sync.Mutex
	var wg sync.WaitGroup
	change := func(u *unit, r request) {
		wg.Go(func() {
			err := u.ask(ctx, r)
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	for name, u := range replacing {
		change(u, request{act: doReplace, spec: services[name].withDefaults()})
	}
	for name, u := range fresh {
		if services[name].IsEnabled() {
			change(u, request{act: doStart})
		}
	}
	wg.Wait()
	for _, list := range []*[]string{&c.Started, &c.Restarted, &c.Stopped, &c.Removed, &c.Updated} {
		slices.Sort(*list)
	}
	return c, errors.Join(errs...)
}

// wanted is what the unit's last spec and requests ask for.
func (u *unit) wanted() (spec Spec, halted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.spec, u.halted
}

func (s *Supervisor) forget(units map[string]*unit, names []string) error {
	gone := map[string]*unit{}
	for _, name := range names {
		gone[name] = units[name]
	}
	err := s.endUnits(gone)
	s.mu.Lock()
	if s.phase == running {
		for name := range gone {
			delete(s.units, name)
		}
	}
	s.mu.Unlock()
	for name, u := range gone {
		s.events.publish(Event{Time: time.Now(), Service: name, State: Removed, Was: u.snapshot().State})
	}
	return err
}

func (s *Supervisor) disable(ctx context.Context, units map[string]*unit, services map[string]Spec) error {
	after := map[string][]string{}
	for name, u := range units {
		after[name] = u.needs()
	}
	var mu sync.Mutex
	var errs []error
	inStopOrder(after, func(name string) {
		err := units[name].ask(ctx, request{act: doReplace, spec: services[name].withDefaults()})
		mu.Lock()
		errs = append(errs, err)
		mu.Unlock()
	})
	return errors.Join(errs...)
}

// add makes the units that are new, with their listeners open; nothing once
// the supervisor is stopping.
func (s *Supervisor) add(services map[string]Spec) map[string]*unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := map[string]*unit{}
	if s.phase != running {
		return fresh
	}
	for name, spec := range services {
		if _, known := s.units[name]; !known {
			u := s.newUnit(name, spec)
			s.prepare(u)
			s.units[name], fresh[name] = u, u
		}
	}
	for _, u := range fresh {
		go u.run(false)
	}
	return fresh
}
