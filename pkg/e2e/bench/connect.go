//go:build linux

package main

import (
	"context"
	"time"
)

// fewDevices are there when connects are measured for the first time.
const fewDevices = 10

// connects are first connects of new devices, measured in turn with their floor.
type connects struct {
	before  int // devices that were connected already
	times   samples
	floor   steps
	expense string
}

// withFew measures first connects while nearly nobody is there, once.
func (s *suite) withFew(ctx context.Context) (*connects, error) {
	if s.few != nil {
		return s.few, nil
	}
	if err := s.running(ctx); err != nil {
		return nil, err
	}
	first, err := s.newDevices(ctx, fewDevices, devicesPerUser, 2)
	if err != nil {
		return nil, err
	}
	if err := s.connectAll(ctx, first, 2); err != nil {
		return nil, err
	}
	s.few, err = s.firstConnects(ctx, pick(s.options, 200, 40), true)
	return s.few, err
}

// firstConnects signs n new devices in and measures how they connect, one after
// the other, in turns with the floor.
func (s *suite) firstConnects(ctx context.Context, n int, withFloor bool) (*connects, error) {
	f, err := s.floor(ctx)
	if err != nil {
		return nil, err
	}
	out := &connects{before: len(s.people.devices)}
	devices, err := s.newDevices(ctx, n, devicesPerUser, 4)
	if err != nil {
		return nil, err
	}
	keys, err := newKeys(2 * n)
	if err != nil {
		return nil, err
	}
	c, err := s.openWire(ctx, s.apiAddress())
	if err != nil {
		return nil, err
	}
	defer c.close()
	empty, err := s.openWire(ctx, f.tls)
	if err != nil {
		return nil, err
	}
	defer empty.close()
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	before, err := s.usage()
	if err != nil {
		return nil, err
	}
	const turn = 20
	for i := 0; i < n; i += turn {
		for j := i; j < min(i+turn, n); j++ {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := out.times.timed(func() error { return devices[j].connect(c, keys[j]) }); err != nil {
				return nil, err
			}
		}
		for j := i; withFloor && j < min(i+turn, n); j++ {
			if err := f.sequence(ctx, empty, keys[n+j], &out.floor); err != nil {
				return nil, err
			}
		}
	}
	if out.expense, err = s.spent(before, n); err != nil {
		return nil, err
	}
	return out, f.forget(ctx)
}

// settle gives what the last load left behind a moment to be done.
func (s *suite) settle(ctx context.Context) error { return pause(ctx, 500*time.Millisecond) }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connectAll connects devices with new keys, some at a time.
func (s *suite) connectAll(ctx context.Context, devices []*device, clients int) error {
	keys, err := newKeys(len(devices))
	if err != nil {
		return err
	}
	wires, err := s.openWires(ctx, clients, s.apiAddress())
	if err != nil {
		return err
	}
	defer closeWires(wires)
	return spreadOut(ctx, clients, len(devices), func(w, i int) error { return devices[i].connect(wires[w], keys[i]) })
}

// initiateOne is /vpn/initiate by one client.
func initiateOne(ctx context.Context, s *suite) error {
	few, err := s.withFew(ctx)
	if err != nil {
		return err
	}
	r := result{
		Name: "initiate", What: "/vpn/initiate, one client, p50 of first connects", Unit: inMillis,
		Value: few.times.median(), Floor: few.floor.all.median(),
		FloorIs: "a new peer in two bare WireGuard devices one after the other, one durable commit, one empty TLS round trip",
	}
	r.goal("4 ms and 4x", r.Value <= 4 && r.ratio() <= 4)
	r.keep("first_connect", few.times)
	r.keep("floor", few.floor.all)
	r.keep("floor_peers", few.floor.peers)
	r.keep("floor_commit", few.floor.commit)
	r.keep("floor_tls", few.floor.tls)
	r.note("first connect of a new device: %s", few.times.spread())
	r.note("floor, in turns with it: %s", few.floor)
	r.note("%s", few.expense)
	if err := s.otherConnects(ctx, &r); err != nil {
		return err
	}
	s.report.add(r)
	return nil
}

// otherConnects measures the ways in which a device connects that is known.
func (s *suite) otherConnects(ctx context.Context, r *result) error {
	n := pick(s.options, 100, 20)
	d := s.people.devices[0]
	c, err := s.openWire(ctx, s.apiAddress())
	if err != nil {
		return err
	}
	defer c.close()
	keys, err := newKeys(n)
	if err != nil {
		return err
	}
	var same, closed, fresh samples
	for _, k := range keys {
		if err := fresh.timed(func() error { return d.connect(c, k) }); err != nil {
			return err
		}
	}
	for range n {
		if err := same.timed(func() error { return d.connect(c, keys[n-1]) }); err != nil {
			return err
		}
	}
	for range n {
		if err := d.disconnect(c); err != nil {
			return err
		}
		if err := closed.timed(func() error { return d.connect(c, keys[n-1]) }); err != nil {
			return err
		}
	}
	r.keep("new_key", fresh)
	r.keep("same_key", same)
	r.keep("after_close", closed)
	r.note("a connected device with a new key, in place of its old peer: %s", fresh.spread())
	r.note("a known device after it closed its session: %s", closed.spread())
	r.note("a connected device with the key it has: %s", same.spread())
	return nil
}
