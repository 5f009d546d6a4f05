//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"vpnd/pkg/wgdev"
)

// crowdTime bounds how long the crowd may take to arrive.
const crowdTime = 100 * time.Second

// initiateMany is /vpn/initiate by 16 clients at once.
func initiateMany(ctx context.Context, s *suite) error {
	const clients = 16
	if err := s.running(ctx); err != nil {
		return err
	}
	devices, err := s.newDevices(ctx, clients, 1, 4)
	if err != nil {
		return err
	}
	if err := s.connectAll(ctx, devices, clients); err != nil {
		return err
	}
	d := pick(s.options, 5*time.Second, 2*time.Second)
	keys, err := newKeys(clients * pick(s.options, 400, 150))
	if err != nil {
		return err
	}
	// nextKey spares the loop the making of keys as long as there are some.
	nextKey := func(client, i int) (wgdev.Key, error) {
		if at := i*clients + client; at < len(keys) {
			return keys[at], nil
		}
		return newKey()
	}
	wires, err := s.openWires(ctx, clients, s.apiAddress())
	if err != nil {
		return err
	}
	defer closeWires(wires)
	if err := s.settle(ctx); err != nil {
		return err
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	done, err := load(ctx, clients, d, func(client, i int) error {
		k, err := nextKey(client, i)
		if err != nil {
			return err
		}
		return devices[client].connect(wires[client], k)
	})
	if err != nil {
		return err
	}
	expense, err := s.spent(before, done.calls)
	if err != nil {
		return err
	}
	floor, err := s.floorMany(ctx, clients, min(d, 3*time.Second))
	if err != nil {
		return err
	}
	r := result{
		Name: "initiate-16", What: "/vpn/initiate, 16 clients", Unit: perSecond, Value: done.rate, Floor: floor.rate,
		FloorIs: "16 clients at the floor of one connect (peers are only added there, never replaced)",
	}
	r.goal("500/s", r.Value >= 500)
	r.keep("initiate", done.times)
	r.keep("floor", floor.times)
	r.note("16 devices of 16 users, each with a new key every time, in place of its old peer: %s", done.times.spread())
	r.note("%s", expense)
	s.report.add(r)
	return nil
}

// floorMany is the floor of a connect, by many clients at once.
func (s *suite) floorMany(ctx context.Context, clients int, d time.Duration) (loaded, error) {
	f, err := s.floor(ctx)
	if err != nil {
		return loaded{}, err
	}
	wires, err := s.openWires(ctx, clients, f.tls)
	if err != nil {
		return loaded{}, err
	}
	defer closeWires(wires)
	keys, err := newKeys(clients * pick(s.options, 600, 200))
	if err != nil {
		return loaded{}, err
	}
	parts := make([]steps, clients)
	done, err := load(ctx, clients, d, func(client, i int) error {
		var k wgdev.Key
		if at := i*clients + client; at < len(keys) {
			k = keys[at]
		} else if k, err = newKey(); err != nil {
			return err
		}
		return f.sequence(ctx, wires[client], k, &parts[client])
	})
	if err != nil {
		return done, err
	}
	return done, f.forget(ctx)
}

// initiateCrowded is /vpn/initiate by one client while ten thousand devices are
// connected.
func initiateCrowded(ctx context.Context, s *suite) error {
	few, err := s.withFew(ctx)
	if err != nil {
		return err
	}
	crowd := pick(s.options, 10_000, 1_000)
	arrive, cancel := context.WithTimeout(ctx, crowdTime)
	defer cancel()
	const clients = 16
	missing := max(crowd-len(s.people.devices), 0)
	began := time.Now()
	devices, err := s.newDevices(arrive, missing, devicesPerUser, clients)
	if err != nil {
		return fmt.Errorf("sign in %d devices: %w", missing, err)
	}
	signedIn := time.Since(began)
	began = time.Now()
	if err := s.connectAll(arrive, devices, clients); err != nil {
		return fmt.Errorf("connect %d devices: %w", missing, err)
	}
	connected := time.Since(began)
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	many, err := s.firstConnects(ctx, pick(s.options, 200, 40), true)
	if err != nil {
		return err
	}
	r := result{
		Name: "initiate-10k", What: fmt.Sprintf("the same with %d devices connected", many.before), Unit: inMillis,
		Value: many.times.median(), Floor: few.times.median(),
		FloorIs: fmt.Sprintf("the figure with %d devices connected", few.before),
	}
	r.goal("1.2x", r.ratio() <= 1.2)
	r.keep("many", many.times)
	r.keep("few", few.times)
	r.note("%s", many.times.spread())
	r.note("bare floor of one connect at the same time: p50 %.2f ms, with few %.2f ms", many.floor.all.median(), few.floor.all.median())
	r.note("%s", many.expense)
	r.note("arrival, %d clients: %d first sign-ins at %.0f/s (cheap passwords), then %d first connects at %.0f/s",
		clients, missing, float64(missing)/signedIn.Seconds(), missing, float64(missing)/connected.Seconds())
	total, _, err := s.memory()
	if err != nil {
		return err
	}
	r.note("memory of all vpnd processes with them: %.0f MiB", total)
	s.report.add(r)
	return nil
}
