//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/lab"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// startGoal is how soon every service is to be ready.
const startGoal = 700 * time.Millisecond

// startUp is how long vpnd takes from its start to every service being ready.
func startUp(ctx context.Context, s *suite) error {
	var floor, again, boot samples
	version := func() error { return s.Command(lab.Server, "vpnd", "version").Run() }
	for range 11 {
		if err := floor.timed(version); err != nil {
			return fmt.Errorf("vpnd version: %w", err)
		}
	}
	line := func(name, what string, times samples) result {
		r := result{
			Name: name, What: what, Unit: inMillis, Value: times.median(), Floor: floor.median(),
			FloorIs: "'vpnd version': one process made, one line printed",
		}
		r.goal("700 ms", r.Value <= millis(startGoal))
		r.keep("start", times)
		r.keep("floor", floor)
		return r
	}
	var first *result
	if !s.begun {
		d, err := s.start(ctx)
		if err != nil {
			return err
		}
		r := line("start-first", "first start ever: keys, databases and interfaces are made", samples{millis(d)})
		if err := s.noteLast(ctx, &r); err != nil {
			return err
		}
		first = &r
	}
	if err := s.running(ctx); err != nil {
		return err
	}
	devices, err := s.newDevices(ctx, 2, devicesPerUser, 2)
	if err != nil {
		return err
	}
	if err := s.connectAll(ctx, devices, 1); err != nil {
		return err
	}
	n := pick(s.options, 5, 3)
	// restart measures a start after everything is stopped and between was done.
	restart := func(times *samples, between func() error) error {
		if err := s.stop(ctx); err != nil {
			return err
		}
		if err := between(); err != nil {
			return err
		}
		d, err := s.start(ctx)
		times.add(d)
		return err
	}
	for range n {
		if err := restart(&again, func() error { return nil }); err != nil {
			return err
		}
	}
	r := line("start", "start to every service ready, median", again)
	r.note("with existing state, the interfaces as vpnd left them: %s", again.list(inMillis))
	if err := s.noteLast(ctx, &r); err != nil {
		return err
	}
	s.report.add(r)
	for range n {
		err := restart(&boot, func() error {
			out, err := s.Command(lab.Server, "vpnd", "teardown").CombinedOutput()
			if err != nil {
				return fmt.Errorf("vpnd teardown: %w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	r = line("start-boot", "the same as after a reboot, median", boot)
	r.note("with existing state, the interfaces to be made anew: %s", boot.list(inMillis))
	if err := s.noteLast(ctx, &r); err != nil {
		return err
	}
	s.report.add(r)
	if first != nil {
		s.report.add(*first)
	}
	return nil
}

// noteLast tells when each service was ready, counted from the first one's
// start: who keeps the others waiting.
func (s *suite) noteLast(ctx context.Context, r *result) error {
	services, err := s.services(ctx)
	if err != nil {
		return err
	}
	var began time.Time
	for _, v := range services {
		if v.StartedAt != nil && (began.IsZero() || v.StartedAt.Before(began)) {
			began = *v.StartedAt
		}
	}
	slices.SortFunc(services, func(a, b serviceState) int { return a.Since.Compare(b.Since) })
	parts := make([]string, len(services))
	for i, v := range services {
		parts[i] = fmt.Sprintf("%s %.0f", v.Name, millis(v.Since.Sub(began)))
	}
	r.note("ready after, in ms since the first was started: %s", strings.Join(parts, ", "))
	return nil
}

// memoryGoal is for all processes of vpnd, without wireguard-go, in MiB.
const memoryGoal = 80

// memoryIdle is the memory of vpnd's processes while nothing happens.
func memoryIdle(ctx context.Context, s *suite) error {
	// Fresh processes, so that what was measured before does not count.
	if err := s.stop(ctx); err != nil {
		return err
	}
	if _, err := s.start(ctx); err != nil {
		return err
	}
	const logins, idle = 20, 10 * time.Second
	devices, err := s.newDevices(ctx, logins, devicesPerUser, 4)
	if err != nil {
		return err
	}
	if err := s.connectAll(ctx, devices, 4); err != nil {
		return err
	}
	if err := pause(ctx, idle); err != nil {
		return err
	}
	total, each, err := s.memory()
	if err != nil {
		return err
	}
	r := result{Name: "memory", What: "memory of all vpnd processes, idle (PSS)", Unit: inMiB, Value: total}
	r.goal("80 MiB", total <= memoryGoal)
	r.note("%.0f s after %d sign-ins and first connects, MiB: %s", idle.Seconds(), logins, each)
	s.report.add(r)
	return nil
}

// memory adds up the processes of vpnd, without wireguard-go, in MiB.
func (w *world) memory() (total float64, each string, err error) {
	services, wireguard, err := w.processes()
	if err != nil {
		return 0, "", err
	}
	var parts, apart []string
	for _, name := range sortedKeys(services) {
		m, err := proportional(services[name])
		if err != nil {
			return 0, "", err
		}
		total += m
		parts = append(parts, fmt.Sprintf("%s %.1f", name, m))
	}
	for _, name := range sortedKeys(wireguard) {
		m, err := proportional(wireguard[name])
		if err != nil {
			return 0, "", err
		}
		apart = append(apart, fmt.Sprintf("%s %.1f", name, m))
	}
	each = strings.Join(parts, ", ")
	if len(apart) > 0 {
		each += "; not counted, wireguard-go: " + strings.Join(apart, ", ")
	}
	return total, each, nil
}
