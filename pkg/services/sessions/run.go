package sessions

import (
	"context"
	"sync"
	"time"
)

// How often what is done. What costs time in proportion to the sessions also
// waits a multiple of what it took.
const (
	lookEvery       = 500 * time.Millisecond
	sweepEvery      = time.Second
	statsEvery      = 2 * time.Second
	checkpointEvery = 2 * time.Second
	reportEvery     = 2 * time.Second
	forgetEvery     = time.Hour
	costShare       = 20

	// lastWrite bounds the checkpoint at the end.
	lastWrite = 3 * time.Second
)

// Run keeps interfaces, states, counters and totals in agreement until ctx
// ends, then writes down what is not on disk yet. It owns every goroutine.
func (m *Manager) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { m.keepAgreeing(ctx) })
	all.Go(func() {
		repeat(ctx, sweepEvery, func() bool {
			for _, s := range m.sweep(ctx) {
				m.expire(ctx, s)
			}
			return true
		})
	})
	all.Go(func() { repeat(ctx, statsEvery, func() bool { m.readStats(ctx); return true }) })
	all.Go(func() { repeat(ctx, checkpointEvery, func() bool { m.checkpoint(ctx); return true }) })
	all.Go(func() { repeat(ctx, reportEvery, func() bool { m.report(ctx); return true }) })
	all.Go(func() { repeat(ctx, forgetEvery, func() bool { m.forgetHistory(ctx); return true }) })
	all.Go(func() {
		repeat(ctx, lookEvery, func() bool { return m.checkLeases(ctx) != nil }) // until it was done once
	})
	all.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	m.checkpoint(last)
	return nil
}

func (m *Manager) keepAgreeing(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		m.agree(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-m.wake:
		}
	}
}

func (m *Manager) forgetHistory(ctx context.Context) {
	if m.cfg.History <= 0 {
		return
	}
	if err := m.db.forget(ctx, m.now().Add(-m.cfg.History)); err != nil && ctx.Err() == nil {
		m.log.Warn("sweep.failed", "err", err)
	}
}

// repeat calls fn until it says that there is no more to do, or ctx ends.
func repeat(ctx context.Context, pause time.Duration, fn func() (more bool)) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		start := time.Now()
		if !fn() {
			return
		}
		t.Reset(max(pause, costShare*time.Since(start)))
	}
}
