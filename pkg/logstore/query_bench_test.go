package logstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// benchRows is how many rows the benchmarks of queries have:
// LOGSTORE_ROWS=5000000 for the figures of DESIGN.md.
func benchRows() int {
	if n, err := strconv.Atoi(os.Getenv("LOGSTORE_ROWS")); err == nil {
		return n
	}
	return 300_000
}

func filled(b *testing.B, dir string) *logstore.Store {
	b.Helper()
	s, err := logstore.Open(b.Context(), logstore.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	st, err := s.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	g := newTraffic()
	pos := int64(0)
	for n := int(st.Rows); n < benchRows(); {
		for _, batch := range g.batches(100_000) {
			batch.From, batch.To = batch.From+pos, batch.To+pos
			for i := range batch.Rows {
				batch.Rows[i].Offset += pos
			}
			if err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			n += len(batch.Rows)
		}
		pos += 100_000 * 280
	}
	return s
}

// question is a query of the benchmarks.
type question struct {
	name, query string
	ask         func(s *logstore.Store, q logquery.Query) (found int, err error)
}

func page(s *logstore.Store, q logquery.Query) (int, error) {
	r, err := s.Query(context.Background(), q, logstore.Page{}, logstore.Limits{Rows: 100})
	return len(r.Rows), err
}

func count(s *logstore.Store, q logquery.Query) (int, error) {
	n, err := s.Count(context.Background(), q, logstore.Limits{})
	return int(n), err
}

func histogram(by string) func(*logstore.Store, logquery.Query) (int, error) {
	return func(s *logstore.Store, q logquery.Query) (int, error) {
		h, err := s.Histogram(context.Background(), q, logstore.Limits{}, time.Minute, by)
		return len(h), err
	}
}

func top(field string) func(*logstore.Store, logquery.Query) (int, error) {
	return func(s *logstore.Store, q logquery.Query) (int, error) {
		_, n, err := s.Top(context.Background(), q, logstore.Limits{}, field, 10)
		return int(n), err
	}
}

func stats(by ...string) func(*logstore.Store, logquery.Query) (int, error) {
	return func(s *logstore.Store, q logquery.Query) (int, error) {
		_, n, err := s.Stats(context.Background(), q, logstore.Limits{}, by...)
		return int(n), err
	}
}

func fields(s *logstore.Store, q logquery.Query) (int, error) {
	f, err := s.Fields(context.Background(), q, logstore.Limits{})
	return len(f), err
}

func services(s *logstore.Store, q logquery.Query) (int, error) {
	f, err := s.Services(context.Background(), q, logstore.Limits{})
	return len(f), err
}

// questions are about everything, about six hours of an old day, and about one
// whole day.
func questions(oldest, whole time.Time) []question {
	span := func(from time.Time, d time.Duration) string {
		return fmt.Sprintf(" since=%s until=%s", from.Format(time.RFC3339), from.Add(d).Format(time.RFC3339))
	}
	window, day := span(oldest.Add(9*time.Hour), 6*time.Hour), span(whole, 24*time.Hour)
	var out []question
	for _, q := range []struct{ name, query string }{
		{"all", ""}, {"service+level", "service=auth level>=error"}, {"level", "level=fatal"}, {"user", "user=user77"},
		{"user+level", "user=user77 level>=error"}, {"user+service+level", "user=user77 service=auth level=error"},
		{"number", "dur_ms>2990"}, {"number+level", "dur_ms>2990 level=fatal"}, {"number-absent", "dur_ms>99999"}, {"number-equal", "dur_ms=1234"},
		{"service-absent", "service=absent"}, {"user-absent", "user=nobody"}, {"user-common-word", "user=tor"}, {"event-of-another", "event=user77"},
		{"session-absent", "session=0123abcd"}, {"session-exists", "session=*"}, {"device-common-word", "device=tor"},
		{"request-absent", "request_id=0123456789abcdef"}, {"prefix", "peer=p0123*"}, {"prefix-user", "user=user199*"}, {"prefix-absent", "peer=q*"},
		{"not-user", "!user=user77"}, {"not-many", "!service=auth !level=info event=lease*"}, {"never-together", "user=user77 peer=p01234"},
	} {
		out = append(out, question{"newest/" + q.name, q.query, page}, question{"newest-6h/" + q.name, q.query + window, page})
	}
	for _, q := range []struct{ name, query string }{
		{"rare", "p01234"}, {"common", "tor"}, {"all", "peer"}, {"absent", "nosuchword"}, {"prefix", "p0123*"}, {"prefix-many", "1*"},
		{"phrase", `"p01234 at"`}, {"phrase-common", `"in lane tor"`}, {"two-words", "p01234 tor"}, {"two-rare", "p01234 p04321"},
	} {
		out = append(out, question{"text/" + q.name, q.query, page}, question{"text-6h/" + q.name, q.query + window, page})
	}
	return append(out,
		question{"count/all-day", day, count}, question{"count/service+level-day", "service=auth level>=warn" + day, count},
		question{"count/word-day", "tor" + day, count}, question{"count/user-day", "user=user77" + day, count},
		question{"histogram/minute-day", day, histogram("")}, question{"histogram/minute-level-day", day, histogram("level")},
		question{"histogram/minute-user77-day", "user=user77" + day, histogram("")}, question{"histogram/minute-event-day", day, histogram("event")},
		question{"top/service-day", day, top("service")}, question{"top/event-day", day, top("event")}, question{"top/event-error-day", "level>=error" + day, top("event")},
		question{"top/user-day", day, top("user")}, question{"top/dur_ms-day", day, top("dur_ms")}, question{"top/peer-day", day, top("peer")},
		question{"stats/service+level-day", day, stats("service", "level")}, question{"stats/service+event-day", day, stats("service", "event")},
		question{"stats/user+event-day", day, stats("user", "event")},
		question{"fields-day", day, fields}, question{"fields-word-day", "tor" + day, fields}, question{"fields-all", "", fields}, question{"services-all", "", services})
}

// run asks again and again, and reports the medians of how long it took and of
// what this process used of the cores meanwhile.
func (c question) run(b *testing.B, s *logstore.Store) {
	q, err := logquery.Parse(c.query, base)
	if err != nil {
		b.Fatal(err)
	}
	b.Run(c.name, func(b *testing.B) {
		n := 0
		var wall, cpu []time.Duration
		for b.Loop() {
			start, used := time.Now(), cpuTime()
			if n, err = c.ask(s, q); err != nil {
				b.Fatal(err)
			}
			wall, cpu = append(wall, time.Since(start)), append(cpu, cpuTime()-used)
		}
		median := func(d []time.Duration) float64 {
			slices.Sort(d)
			return d[len(d)/2].Seconds() * 1000
		}
		b.ReportMetric(median(wall), "median-ms")
		b.ReportMetric(median(cpu), "cpu-ms")
		b.ReportMetric(float64(n), "found")
	})
}

// benchStore is a store of LOGSTORE_ROWS rows, a million a day, kept in
// LOGSTORE_DIR if that is set, and a whole day of it.
func benchStore(b *testing.B, dir string) (s *logstore.Store, oldest, whole time.Time) {
	s = filled(b, dir)
	if err := s.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Retain(b.Context()); err != nil {
		b.Fatal(err)
	}
	st, err := s.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d rows, %d days, %.0f bytes a row", st.Rows, len(st.Days), float64(st.Bytes)/float64(st.Rows))
	whole = st.Newest.Truncate(24 * time.Hour)
	if len(st.Days) > 1 {
		whole = whole.Add(-24 * time.Hour)
	}
	return s, st.Oldest.Truncate(24 * time.Hour), whole
}

func benchDir(b *testing.B) string {
	if dir := os.Getenv("LOGSTORE_DIR"); dir != "" {
		return dir
	}
	return b.TempDir()
}

// BenchmarkQueries asks when nothing else is going on.
func BenchmarkQueries(b *testing.B) {
	s, oldest, whole := benchStore(b, benchDir(b))
	defer s.Close()
	for _, c := range questions(oldest, whole) {
		c.run(b, s)
	}
	b.Logf("at most %s of memory", peakMemory(b))
}

// peakMemory is the most that this process ever had in memory, the benchmark's
// own records included.
func peakMemory(b *testing.B) string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

// BenchmarkQueriesDuringIngest asks the main ones while rows are appended to a
// new day as fast as they go in.
func BenchmarkQueriesDuringIngest(b *testing.B) {
	kept := benchDir(b)
	s, _, whole := benchStore(b, kept)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	// The days that are there are not written to: links do.
	dir, err := os.MkdirTemp(kept, "ingest")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	days, err := filepath.Glob(filepath.Join(kept, "*.db"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range days {
		if filepath.Base(name) == "state.db" {
			continue
		}
		if err := os.Link(name, filepath.Join(dir, filepath.Base(name))); err != nil {
			b.Fatal(err)
		}
	}
	if s, err = logstore.Open(b.Context(), logstore.Options{Dir: dir}); err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	rows, start := 0, time.Now()
	batches := newTraffic().batches(40_000)
	wg.Go(func() {
		pos := int64(0)
		for round := 0; ; round++ {
			for _, batch := range batches {
				select {
				case <-stop:
					return
				default:
				}
				next := logstore.Batch{File: logstore.FileID{Dev: 9, Ino: 9, Path: "/var/log/new.log"}, From: pos, Rows: slices.Clone(batch.Rows)}
				for i := range next.Rows {
					pos += 280
					next.Rows[i].Offset = pos
					next.Rows[i].Record.Time = whole.Add(72*time.Hour + time.Duration(rows+i)*50*time.Microsecond)
				}
				next.To = pos
				if err := s.Append(context.Background(), next); err != nil {
					b.Error(err)
					return
				}
				rows += len(next.Rows)
			}
		}
	})
	for _, c := range questions(whole, whole) {
		if !strings.Contains(c.name, "-6h/") {
			c.run(b, s)
		}
	}
	close(stop)
	wg.Wait()
	b.Logf("%.0f rows a second came in", float64(rows)/time.Since(start).Seconds())
	b.Logf("at most %s of memory", peakMemory(b))
}
