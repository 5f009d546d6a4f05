//go:build linux

package main

import (
	"context"
	"time"
)

// loginMany is sign-ins by 8 clients at once, beside what Argon2id alone allows
// on this machine.
func loginMany(ctx context.Context, s *suite) error {
	const clients = 8
	if err := s.running(ctx); err != nil {
		return err
	}
	devices, err := s.newDevices(ctx, clients, 1, 2)
	if err != nil {
		return err
	}
	key, err := s.loginKey(ctx)
	if err != nil {
		return err
	}
	raw := 2 * time.Second
	r := result{Name: "login", What: "login, 8 clients", Unit: perSecond}
	// Which number of workers gets most out of the machine?
	best, bestRate := 0, 0.0
	for _, workers := range []int{1, 2, 8} {
		h, err := rawArgon2(ctx, workers, raw)
		if err != nil {
			return err
		}
		r.note("Argon2id alone, %d at a time: %.1f/s", workers, h.Rate)
		if h.Rate > bestRate {
			best, bestRate = workers, h.Rate
		}
	}
	// Not earlier: the server hangs up on who says nothing for ten seconds.
	wires, err := s.openWires(ctx, clients, s.apiAddress())
	if err != nil {
		return err
	}
	defer closeWires(wires)
	// In turns, so that a change of the machine's speed meets both.
	var times, rawTimes, rates, rawRates samples
	calls := 0
	before, err := s.usage()
	if err != nil {
		return err
	}
	for range pick(s.options, 5, 2) {
		done, err := load(ctx, clients, 3*time.Second, func(client, _ int) error {
			return devices[client].signIn(wires[client], key)
		})
		if err != nil {
			return err
		}
		h, err := rawArgon2(ctx, best, raw)
		if err != nil {
			return err
		}
		times, rawTimes = append(times, done.times...), append(rawTimes, h.Times...)
		rates, rawRates = append(rates, done.rate), append(rawRates, h.Rate)
		calls += done.calls
	}
	expense, err := s.spent(before, calls)
	if err != nil {
		return err
	}
	r.Value, r.Floor = rates.median(), rawRates.median()
	r.FloorIs = "Argon2id alone with the same parameters (t=3, m=64 MiB, p=4), at the best number at a time"
	r.goal("90 %", r.ratio() >= 0.9)
	r.keep("login", times)
	r.keep("floor", rawTimes)
	r.keep("login_rates", rates)
	r.keep("floor_rates", rawRates)
	r.note("%s; in turns %s", times.spread(), rates.list("/s"))
	r.note("Argon2id alone, %d at a time, between the logins: %s; in turns %s", best, rawTimes.spread(), rawRates.list("/s"))
	r.note("%s", expense)
	s.report.add(r)
	return nil
}
