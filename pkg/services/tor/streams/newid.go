package streams

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"vpnd/pkg/fault"
)

// Closed is what a new identity took away.
type Closed struct{ Circuits, Streams int }

// NewIdentity closes the circuits of the devices, and what waits of theirs;
// whatever they open next takes other circuits. All closes every device's.
// What has no owner, because a journal was lost, is closed with it: better a
// stranger's connection than a shared identity. It goes on when ctx ends, since
// half of it is worth nothing; after an error it has to be asked for again.
func (a *Attacher) NewIdentity(ctx context.Context, devices []netip.Addr, all bool) (Closed, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	a.epoch++
	want := func(d netip.Addr) bool { return all || slices.Contains(devices, d) }
	theirs := a.theirs(want)
	var out Closed
	var failed error
	for _, s := range a.streams {
		mine := s.unknown || s.device.IsValid() && want(s.device)
		switch {
		case s.closed:
			s.renew = s.renew || mine
		case mine && !theirs[s.circuit]:
			s.renew = true
			failed = errors.Join(failed, a.shut(ctx, s))
			out.Streams++
		case theirs[s.circuit]:
			// tor may keep a circuit for a last question to its exit, and the
			// streams on it with it, so they do not end by themselves.
			failed = errors.Join(failed, a.shut(ctx, s))
			out.Streams++
		}
	}
	for id := range theirs {
		c := a.circuits[id]
		c.dirty, c.building = true, false
		switch err := a.ctl.CloseCircuit(ctx, id); {
		case err == nil:
			out.Circuits++
		case !errors.Is(err, fault.NotFound):
			failed = errors.Join(failed, err)
		}
	}
	return out, failed
}

// theirs lists the circuits of the devices. One that may have carried unknown
// streams is anybody's until a device is seen on it or
// on its other leg.
func (a *Attacher) theirs(want func(netip.Addr) bool) map[string]bool {
	theirs, legs, known := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range a.circuits {
		known[c.conflux] = known[c.conflux] || c.conflux != "" && len(c.devices) > 0
	}
	for _, c := range a.circuits {
		hit := c.strangers && len(c.devices) == 0 && !known[c.conflux]
		for d := range c.devices {
			hit = hit || want(d)
		}
		if hit {
			theirs[c.id] = true
			legs[c.conflux] = c.conflux != ""
		}
	}
	for _, c := range a.circuits {
		if legs[c.conflux] {
			theirs[c.id] = true // the other leg of the same connection
		}
	}
	return theirs
}

// ChoicesChanged makes streams that are being placed ask again which choice holds.
func (a *Attacher) ChoicesChanged() {
	a.mu.Lock()
	a.epoch++
	a.mu.Unlock()
}

// Use is what is known of a circuit besides what tor says.
type Use struct {
	Ours    bool
	Streams int
	Devices []netip.Addr
}

// Uses tells whose the circuits are.
func (a *Attacher) Uses() map[string]Use {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]Use, len(a.circuits))
	for id, c := range a.circuits {
		u := Use{Ours: c.ours, Streams: c.streams}
		for d := range c.devices {
			u.Devices = append(u.Devices, d)
		}
		slices.SortFunc(u.Devices, netip.Addr.Compare)
		out[id] = u
	}
	return out
}

// Source is the device of a stream; not valid when it has none or it is not known.
func (a *Attacher) Source(stream string) netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.streams[stream]; s != nil {
		return s.device
	}
	return netip.Addr{}
}

// LastExit is the exit, a fingerprint, of the circuit that one of the devices
// used most recently first; empty when none is known.
func (a *Attacher) LastExit(devices []netip.Addr) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var last *circuit
	for _, c := range a.circuits {
		for _, d := range devices {
			if c.devices[d] && c.exit() != "" && !c.usedAt.IsZero() && (last == nil || c.usedAt.After(last.usedAt)) {
				last = c
			}
		}
	}
	if last == nil {
		return ""
	}
	return last.exit()
}

// Count tells how many circuits and streams there are.
func (a *Attacher) Count() (circuits, streams int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.circuits), len(a.streams)
}
