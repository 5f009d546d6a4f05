package logtail_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/logtail"
)

// runFor follows dir until stop is called; sink gets what it is given.
func runFor(b *testing.B, dir string, sink func([]logtail.Chunk)) (stop func()) {
	k := newKeeper()
	opts := k.options(dir)
	opts.Rescan = 0
	opts.Sink = func(_ context.Context, c []logtail.Chunk) error { sink(c); return nil }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- logtail.Run(ctx, opts) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkRead is how quickly lines come out of files that are there, with a sink
// that does nothing.
func BenchmarkRead(b *testing.B) {
	const files, lines = 5, 200_000
	dir := b.TempDir()
	line := strings.Repeat("x", 159) + "\n"
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".log")), []byte(strings.Repeat(line, lines)), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(files * lines * len(line)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		all := make(chan struct{})
		stop := runFor(b, dir, func(chunks []logtail.Chunk) {
			for _, c := range chunks {
				n += len(c.Lines)
			}
			if n == files*lines {
				close(all)
			}
		})
		<-all
		stop()
	}
	b.ReportMetric(float64(files*lines*b.N)/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkLatency is the time from the writing of a line to the sink, while five
// writers write 1,000 lines a second each, one at a time.
func BenchmarkLatency(b *testing.B) {
	const writers, rate = 5, 1000
	dir := b.TempDir()
	var mu sync.Mutex
	var took []time.Duration
	stop := runFor(b, dir, func(chunks []logtail.Chunk) {
		now := time.Now().UnixNano()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range chunks {
			for _, l := range c.Lines {
				at, err := strconv.ParseInt(string(l[:19]), 10, 64)
				if err != nil {
					b.Error(err)
				}
				took = append(took, time.Duration(now-at))
			}
		}
	})
	cpu := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(w, ".log")), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				b.Error(err)
				return
			}
			defer f.Close()
			tick := time.NewTicker(time.Second / rate)
			defer tick.Stop()
			for range max(b.N/writers, 1) {
				<-tick.C
				if _, err := fmt.Fprintf(f, "%d %0120d\n", time.Now().UnixNano(), 0); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	cpu = cpuTime() - cpu
	for have := 0; have < max(b.N/writers, 1)*writers; {
		mu.Lock()
		have = len(took)
		mu.Unlock()
	}
	stop()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds()), "p95-µs")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(100*cpu.Seconds()/b.Elapsed().Seconds(), "cpu-%")
}

// BenchmarkIdle is what it costs to follow 2,000 files that nobody writes to: the
// share of one core, over 25 seconds for the first run.
func BenchmarkIdle(b *testing.B) {
	dir := b.TempDir()
	for i := range 2000 {
		sub := filepath.Join(dir, fmt.Sprint(i%20))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i, ".log")), []byte("line\nhalf"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	n, all := 0, make(chan struct{})
	stop := runFor(b, dir, func(chunks []logtail.Chunk) {
		for _, c := range chunks {
			n += len(c.Lines)
		}
		if n == 4000 {
			close(all)
		}
	})
	<-all
	cpu, began := cpuTime(), time.Now()
	for b.Loop() {
		<-time.After(25 * time.Second)
	}
	b.ReportMetric(100*(cpuTime()-cpu).Seconds()/time.Since(began).Seconds(), "cpu-%")
	stop()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
