//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// samples are measurements of one thing, in milliseconds where they are times.
type samples []float64

func (s *samples) add(d time.Duration) { *s = append(*s, millis(d)) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile is the smallest sample that the part q of all does not exceed.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func (s samples) median() float64 { return s.quantile(0.5) }

func (s samples) max() float64 { return s.quantile(1) }

// spread says how a time was distributed.
func (s samples) spread() string {
	return fmt.Sprintf("p50 %.2f, p90 %.2f, p99 %.2f ms, n=%d", s.median(), s.quantile(0.9), s.quantile(0.99), len(s))
}

// list writes all of them, for samples that are few.
func (s samples) list(unit string) string {
	parts := make([]string, len(s))
	for i, v := range s {
		parts[i] = figure(v, plain)
		if v < 100 {
			parts[i] = fmt.Sprintf("%.1f", v)
		}
	}
	return strings.Join(parts, ", ") + " " + unit
}

// timed adds how long fn took, if it did what it should.
func (s *samples) timed(fn func() error) error {
	began := time.Now()
	if err := fn(); err != nil {
		return err
	}
	s.add(time.Since(began))
	return nil
}

// warmUp is the beginning of a load that is not counted.
const warmUp = 500 * time.Millisecond

// loaded is what many clients did in a time.
type loaded struct {
	rate  float64 // calls per second in the counted time
	calls int     // in all, the warm-up included
	times samples // of the calls that ended in the counted time
}

// load lets n clients call fn one after the other for warmUp and d more. The
// first error ends it.
func load(ctx context.Context, n int, d time.Duration, fn func(client, i int) error) (loaded, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from := time.Now().Add(warmUp)
	to := from.Add(d)
	var mu sync.Mutex
	var out loaded
	work := 0.0 // in calls
	var clients sync.WaitGroup
	for c := range n {
		clients.Go(func() {
			var times samples
			calls, mine := 0, 0.0
			for i := 0; ctx.Err() == nil && time.Now().Before(to); i++ {
				began := time.Now()
				if err := fn(c, i); err != nil {
					cancel(err)
					break
				}
				end := time.Now()
				calls++
				mine += share(began, end, from, to)
				if end.After(from) && end.Before(to) {
					times.add(end.Sub(began))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			work += mine
			out.calls += calls
			out.times = append(out.times, times...)
		})
	}
	clients.Wait()
	if err := context.Cause(ctx); err != nil {
		return out, err
	}
	out.rate = work / d.Seconds()
	return out, nil
}

// share is the part of a call that lies between from and to. Counting whole
// calls would make the rate of long ones depend on where the time was cut.
func share(began, end, from, to time.Time) float64 {
	counted := min(end.Sub(from), to.Sub(from)) - max(began.Sub(from), 0)
	if counted <= 0 {
		return 0
	}
	return float64(counted) / float64(end.Sub(began))
}

// spreadOut does fn for 0 to total-1 with n workers, each with its number, and
// gives the first error. When ctx ends it returns what ended it.
func spreadOut(ctx context.Context, n, total int, fn func(worker, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var workers sync.WaitGroup
	for w := range n {
		workers.Go(func() {
			for i := range next {
				if err := fn(w, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range total {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}
