package logstore_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// latencies collects how long calls took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) time(fn func() error) error {
	start := time.Now()
	err := fn()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, time.Since(start))
	return err
}

func (l *latencies) report(b *testing.B, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return
	}
	slices.Sort(l.all)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	long, _ := slices.BinarySearch(l.all, 100*time.Millisecond)
	b.ReportMetric(ms(l.all[len(l.all)/2]), name+"-p50-ms")
	b.ReportMetric(ms(l.all[len(l.all)*99/100]), name+"-p99-ms")
	b.ReportMetric(ms(l.all[len(l.all)-1]), name+"-max-ms")
	b.ReportMetric(float64(len(l.all)-long), name+"-over-100ms")
}

func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// BenchmarkStalls measures how long appends and queries take while rows come in
// at LOGSTORE_RATE a second (0: as fast as they can), while days are removed and
// finished, and while a purge rewrites a whole day. LOGSTORE_STALL_ROWS is how
// many rows come in.
func BenchmarkStalls(b *testing.B) {
	rows, rate := envInt("LOGSTORE_STALL_ROWS", 200_000), envInt("LOGSTORE_RATE", 20_000)
	for b.Loop() {
		stalls(b, rows, rate)
	}
}

func stalls(b *testing.B, rows, rate int) {
	ctx := b.Context()
	g := newTraffic()
	var mu sync.Mutex
	now := base.Add(24 * time.Hour)
	dir, wal := b.TempDir(), int64(0)
	s, err := logstore.Open(ctx, logstore.Options{Dir: dir, MaxAge: 36 * time.Hour, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	// Two days that are over: one is removed, the other purged. Then the day that
	// the rows come into, and a late row of the old day now and then.
	pos := int64(0)
	take := func(n int, at time.Time, step time.Duration) logstore.Batch {
		batch := logstore.Batch{File: source, From: pos}
		for i := range n {
			pos += 280
			rec := g.next()
			rec.Time = at.Add(time.Duration(i) * step)
			batch.Rows = append(batch.Rows, logstore.Row{Offset: pos, Record: rec})
		}
		batch.To = pos
		return batch
	}
	old := rows / 3
	for d := range 2 {
		for i := 0; i < old; i += 4000 {
			at := base.Add(time.Duration(d)*24*time.Hour + time.Duration(i)*time.Millisecond)
			if err := s.Append(ctx, take(4000, at, time.Millisecond)); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Settle(ctx); err != nil {
		b.Fatal(err)
	}
	var appends, queries latencies
	var retain, purge time.Duration
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var asked []logquery.Query
	for _, text := range []string{"", "service=auth level>=error", "p01234", "user=user77", "since=2026-03-03 level>=warn"} {
		q, err := logquery.Parse(text, base)
		if err != nil {
			b.Fatal(err)
		}
		asked = append(asked, q)
	}
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if logs, err := filepath.Glob(filepath.Join(dir, "*-wal")); err == nil {
				for _, name := range logs {
					if fi, err := os.Stat(name); err == nil {
						wal = max(wal, fi.Size())
					}
				}
			}
			err := queries.time(func() error {
				if i%len(asked) == len(asked)-1 {
					_, err := s.Count(context.Background(), asked[i%len(asked)], logstore.Limits{})
					return err
				}
				_, err := s.Query(context.Background(), asked[i%len(asked)], logstore.Page{}, logstore.Limits{Rows: 100})
				return err
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	begin := time.Now()
	const size = 1000
	third := rows / size / 3 * size
	for n := 0; n < rows; n += size {
		switch n {
		case third:
			mu.Lock()
			now = base.Add(61 * time.Hour) // the first day is over its age
			mu.Unlock()
			wg.Go(func() {
				start := time.Now()
				if days, err := s.Retain(ctx); err != nil || len(days) != 1 {
					b.Error(days, err)
				}
				retain = time.Since(start)
			})
		case 2 * third:
			wg.Go(func() {
				q, err := logquery.Parse("user=user7*,user8* until=2026-03-03", base)
				if err != nil {
					b.Error(err)
					return
				}
				start := time.Now()
				if _, err := s.Purge(ctx, q, false); err != nil {
					b.Error(err)
				}
				purge = time.Since(start)
			})
		}
		batch := take(size, base.Add(48*time.Hour+time.Duration(n)*50*time.Microsecond), 50*time.Microsecond)
		if n/size%20 == 7 {
			batch.Rows[size-1].Record.Time = base.Add(30 * time.Hour) // late
		}
		if err := appends.time(func() error { return s.Append(ctx, batch) }); err != nil {
			b.Fatal(err)
		}
		if rate > 0 {
			due := begin.Add(time.Duration(n+size) * time.Second / time.Duration(rate))
			pause := time.NewTimer(time.Until(due))
			<-pause.C
		}
	}
	took := time.Since(begin)
	close(stop)
	wg.Wait()
	appends.report(b, "append")
	queries.report(b, "query")
	b.ReportMetric(float64(rows)/took.Seconds(), "rows/s")
	b.ReportMetric(float64(wal)/(1<<20), "longest-log-MiB")
	b.ReportMetric(float64(retain.Microseconds())/1000, "retain-ms")
	b.ReportMetric(float64(purge.Microseconds())/1000, "purge-ms")
}
