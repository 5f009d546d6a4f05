//go:build linux

package main

import (
	"context"
	"time"
)

// heartbeatOne is a heartbeat by one client.
func heartbeatOne(ctx context.Context, s *suite) error {
	if err := s.running(ctx); err != nil {
		return err
	}
	f, err := s.floor(ctx)
	if err != nil {
		return err
	}
	devices, err := s.newDevices(ctx, 1, devicesPerUser, 1)
	if err != nil {
		return err
	}
	if err := s.connectAll(ctx, devices, 1); err != nil {
		return err
	}
	c, err := s.openWire(ctx, s.apiAddress())
	if err != nil {
		return err
	}
	defer c.close()
	empty, err := s.openWire(ctx, f.tls)
	if err != nil {
		return err
	}
	defer empty.close()

	var beats, trips samples
	n, turn := pick(s.options, 2000, 300), 100
	if err := s.settle(ctx); err != nil {
		return err
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	for i := 0; i < n; i += turn {
		for range turn {
			if err := beats.timed(func() error { return devices[0].beat(c) }); err != nil {
				return err
			}
		}
		for range turn {
			if err := trips.timed(func() error { _, err := empty.send(emptyCall, "", nil); return err }); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	expense, err := s.spent(before, n)
	if err != nil {
		return err
	}
	r := result{
		Name: "heartbeat", What: "heartbeat, one client, p50", Unit: inMillis, Value: beats.median(), Floor: trips.median(),
		FloorIs: "an empty TLS round trip",
	}
	r.goal("0.6 ms", r.Value <= 0.6)
	r.keep("heartbeat", beats)
	r.keep("floor", trips)
	r.note("%s", beats.spread())
	r.note("floor, in turns with it: %s", trips.spread())
	r.note("%s", expense)
	s.report.add(r)
	return nil
}

// heartbeatMany is heartbeats by 32 clients at once.
func heartbeatMany(ctx context.Context, s *suite) error {
	const clients = 32
	if err := s.running(ctx); err != nil {
		return err
	}
	f, err := s.floor(ctx)
	if err != nil {
		return err
	}
	devices, err := s.newDevices(ctx, clients, devicesPerUser, 4)
	if err != nil {
		return err
	}
	if err := s.connectAll(ctx, devices, 4); err != nil {
		return err
	}
	wires, err := s.openWires(ctx, clients, s.apiAddress())
	if err != nil {
		return err
	}
	defer closeWires(wires)
	empties, err := s.openWires(ctx, clients, f.tls)
	if err != nil {
		return err
	}
	defer closeWires(empties)
	if err := s.settle(ctx); err != nil {
		return err
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	done, err := load(ctx, clients, pick(s.options, 5*time.Second, 2*time.Second), func(client, _ int) error {
		return devices[client].beat(wires[client])
	})
	if err != nil {
		return err
	}
	expense, err := s.spent(before, done.calls)
	if err != nil {
		return err
	}
	floor, err := load(ctx, clients, pick(s.options, 3*time.Second, time.Second), func(client, _ int) error {
		_, err := empties[client].send(emptyCall, "", nil)
		return err
	})
	if err != nil {
		return err
	}
	r := result{
		Name: "heartbeat-32", What: "heartbeat, 32 clients", Unit: perSecond, Value: done.rate, Floor: floor.rate,
		FloorIs: "32 clients making empty TLS round trips",
	}
	r.goal("5000/s", r.Value >= 5000)
	r.keep("heartbeat", done.times)
	r.keep("floor", floor.times)
	r.note("%s", done.times.spread())
	r.note("floor, right after: %s", floor.times.spread())
	r.note("%s", expense)
	s.report.add(r)
	return nil
}
