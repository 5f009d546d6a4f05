//go:build linux

package main

import (
	"context"

	"vpnd/pkg/api/tor"
)

// torFirstPage is how soon a device has a page after an operator asked for the
// lane, with a tor that runs and has circuits, and what the calls take.
func torFirstPage(ctx context.Context, s *suite) error {
	devices, err := s.torDevices(ctx, 1)
	if err != nil {
		return err
	}
	if err := s.page(ctx, devices[0]); err != nil {
		return err
	}
	var pages, ups, downs samples
	for range pick(s.options, 30, 10) {
		if err := downs.timed(func() error { return s.wish(ctx, tor.WishDown) }); err != nil {
			return err
		}
		err := pages.timed(func() error {
			if err := ups.timed(func() error { return s.wish(ctx, tor.WishUp) }); err != nil {
				return err
			}
			return s.page(ctx, devices[0])
		})
		if err != nil {
			return err
		}
	}
	calls := result{Name: "tor-set", What: "tor.set down over control.sock, p50", Unit: inMillis, Value: downs.median()}
	calls.keep("down", downs)
	calls.keep("up", ups)
	calls.note("returns when the kernel has the rules; wish on disk, tor service, lanes, nftables: down %s; up %s", downs.spread(), ups.spread())
	s.report.add(calls)
	r := result{Name: "tor-page", What: "up, with a tor that runs, to the first page, p50", Unit: inMillis, Value: pages.median()}
	r.goal("500 ms", r.Value <= 500)
	r.keep("page", pages)
	r.note("from the call to the end of a page through the tunnel and three relays: %s, slowest %.0f ms", pages.spread(), pages.max())
	s.report.add(r)
	return nil
}

// torCold is how soon the lane is up after tor was started.
func torCold(ctx context.Context, s *suite) error {
	n := pick(s.options, 5, 3)
	for _, c := range []struct {
		name, what string
		forget     bool
	}{
		{"tor-cold", "tor started, state kept, to lane up, median", false},
		{"tor-fresh", "the same with an empty data folder, median", true},
	} {
		var times samples
		for range n {
			if err := s.stopTor(ctx, c.forget); err != nil {
				return err
			}
			err := times.timed(func() error {
				if _, err := tor.Start.Call(ctx, s.ops, nil); err != nil {
					return err
				}
				return s.laneUp(ctx)
			})
			if err != nil {
				return err
			}
		}
		r := result{Name: c.name, What: c.what, Unit: inMillis, Value: times.median()}
		r.goal("5000 ms", r.Value <= 5000)
		r.keep("start", times)
		r.note("process, bootstrap, test circuit, rules: %s", times.list(inMillis))
		s.report.add(r)
	}
	return nil
}
