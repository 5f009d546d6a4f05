//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/logline"
	"vpnd/pkg/logstore"
)

const (
	ingestGoal  = 60_000
	storeGoal   = 100_000
	corpusEnd   = "corpus_end" // request id of the corpus' last line
	takenBefore = 20_000       // lines before the end of a file at which the next is moved there
)

// logsTaken is what taking in the corpus cost.
type logsTaken struct {
	took        time.Duration // until the last line was found
	cpu         float64       // ms, until there was nothing more to do
	seconds     samples       // lines taken in each second
	append      time.Duration // the floor
	bytes, kept int64         // of the lines, and on disk
	paused      int64         // ms
	peak        float64       // MiB, of the service's memory
	peakAsked   float64       // the same after all questions; 0: not asked
}

// takeIn has the service read the corpus, once.
func (s *suite) takeIn(ctx context.Context) (*logsTaken, error) {
	l := s.logs
	if l.taken != nil {
		return l.taken, nil
	}
	t := &logsTaken{}
	for i, day := range l.days {
		last := ""
		if i == len(l.days)-1 {
			last = corpusEnd
		}
		n, took, err := writeLogFile(l.staged(day), day.traffic(i), day.rows, last)
		if err != nil {
			return nil, err
		}
		t.bytes, t.append = t.bytes+n, t.append+took
	}
	before, err := s.logsQuiet(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.feed(ctx, t); err != nil {
		return nil, err
	}
	t.took = time.Since(began)
	after, err := s.logsQuiet(ctx)
	if err != nil {
		return nil, err
	}
	t.cpu = after - before
	st, err := logs.GetStatus.Call(ctx, s.ops, nil)
	if err != nil {
		return nil, err
	}
	if st.Rows != int64(l.rows) || st.Problem != "" {
		return nil, fmt.Errorf("%d lines were written and %d are kept; problem: %q", l.rows, st.Rows, st.Problem)
	}
	t.kept, t.paused = st.Bytes, st.PausedMs
	if t.peak, err = s.logsPeak(); err != nil {
		return nil, err
	}
	l.taken = t
	return t, nil
}

func (l *logBench) staged(d logDay) string { return filepath.Join(l.stage, filepath.Base(d.path)) }

// feed moves the files of the corpus to where the service reads, the next when
// it is nearly done with the one before, as if they were written just ahead of
// it. It returns when the last line can be found.
func (s *suite) feed(ctx context.Context, t *logsTaken) error {
	l := s.logs
	ctx, cancel := takenInTime(ctx, l.rows)
	defer cancel()
	st, err := logs.GetStatus.Call(ctx, s.ops, nil)
	if err != nil {
		return err
	}
	first, end := st.LinesIn, 0
	lastLines, lastAt := st.LinesIn, time.Now()
	for i := 0; ; {
		if i < len(l.days) && int(st.LinesIn-first) >= end-takenBefore {
			if err := os.Rename(l.staged(l.days[i]), l.days[i].path); err != nil {
				return err
			}
			end += l.days[i].rows
			i++
		}
		if i == len(l.days) && int(st.LinesIn-first) >= end-takenBefore {
			return s.logsFound(ctx, corpusEnd, 10*time.Millisecond)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		if st, err = logs.GetStatus.Call(ctx, s.ops, nil); err != nil {
			return err
		}
		if d := time.Since(lastAt); d >= time.Second {
			t.seconds = append(t.seconds, float64(st.LinesIn-lastLines)/d.Seconds())
			lastLines, lastAt = st.LinesIn, time.Now()
		}
	}
}

// takenInTime bounds the taking in of so many lines.
func takenInTime(ctx context.Context, lines int) (context.Context, context.CancelFunc) {
	const slowest = 2000 // lines a second
	return context.WithTimeout(ctx, readyTimeout+time.Duration(lines)*time.Second/slowest)
}

// logsIngest is how fast lines in files come to be found, beside writing them
// to a file at all, and what that costs, beside putting them into SQLite.
func logsIngest(ctx context.Context, s *suite) error {
	l := s.logs
	t, err := s.takeIn(ctx)
	if err != nil {
		return err
	}
	n := float64(l.rows)
	r := result{
		Name: "logs-ingest", What: "logs: lines taken in from files until the last is found", Unit: perSecond,
		Value: n / t.took.Seconds(), Floor: n / t.append.Seconds(),
		FloorIs: fmt.Sprintf("the same lines appended to a file, one write for %d of them and one fsync", linesAWrite),
	}
	r.goal("60000/s", r.Value >= ingestGoal)
	r.keep("each_second", t.seconds)
	r.note("%d lines of %.0f B in %d files, one after the other; reading waited for the store for %d ms", l.rows, float64(t.bytes)/n, len(l.days), t.paused)
	if len(t.seconds) > 0 {
		r.note("in one second: slowest %.0f, median %.0f lines", t.seconds.quantile(0), t.seconds.median())
	}
	floor, err := l.sqlite(ctx, s.tmp)
	if err != nil {
		return err
	}
	c := result{
		Name: "logs-ingest-cpu", What: "logs: processor time of the service a line, search included", Unit: inMicros,
		Value: 1000 * t.cpu / n, Floor: 1e6 * floor.cpu.Seconds() / n,
		FloorIs: fmt.Sprintf("inserting the parsed lines into SQLite, one index, no search, %d rows a statement, %d a transaction", sqlRows, linesAWrite),
	}
	c.note("until everything is indexed; so it is %.0f lines a CPU-second", n/t.cpu*1000)
	c.note("SQLite takes in %.0f/s, %.0f a CPU-second, and has %.0f B a row", n/floor.took.Seconds(), n/floor.cpu.Seconds(), float64(floor.size)/n)
	s.report.add(r)
	s.report.add(c)
	return nil
}

// logsRows is what the store alone makes of a CPU-second, without files, lines
// and sockets.
func logsRows(ctx context.Context, s *suite) error {
	floor, err := s.logs.sqlite(ctx, s.tmp)
	if err != nil {
		return err
	}
	n := min(s.logs.days[0].rows, pick(s.options, 200_000, 50_000))
	batches, parse := s.logs.batches(n, n)
	scattered, _ := s.logs.batches(n, unindexed)
	// As services have it; see pkg/service.
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	var rates, walls, first samples
	measure := func(batches []logstore.Batch, rates, walls *samples) error {
		runtime.GC()
		dir := filepath.Join(s.tmp, "store")
		cpu, began := ownTime(), time.Now()
		if err := fillStore(ctx, dir, batches); err != nil {
			return err
		}
		*rates = append(*rates, float64(n)/(ownTime()-cpu).Seconds())
		*walls = append(*walls, float64(n)/time.Since(began).Seconds())
		return os.RemoveAll(dir)
	}
	for range 3 {
		if err := errors.Join(measure(batches, &rates, &walls), measure(scattered, &first, &samples{})); err != nil {
			return err
		}
	}
	r := result{
		Name: "logs-rows", What: "logs: rows the store alone takes in, before search", Unit: perCPU,
		Value: first.median(), Floor: float64(s.logs.rows) / floor.cpu.Seconds(),
		FloorIs: "inserting the same records into SQLite with one index, no search",
	}
	r.goal("100000/CPU-s", r.Value >= storeGoal)
	r.keep("rates", first)
	r.note("%d parsed records, %d a day: kept for good and found, row by row, but neither coded nor indexed; each time %s", n, unindexed, first.list(perCPU))
	r.note("parsing the lines, which is not in it, takes %.2f µs of processor time each", float64(parse.Microseconds())/float64(n))
	all := result{
		Name: "logs-rows-indexed", What: "logs: rows the store alone takes in, search included", Unit: perCPU,
		Value: rates.median(), Floor: r.Floor, FloorIs: r.FloorIs,
	}
	all.keep("rates", rates)
	all.note("%d parsed records of one day, until all are indexed; each time %s; %.0f/s of real time", n, rates.list(perCPU), walls.median())
	s.report.add(r)
	s.report.add(all)
	return nil
}

// unindexed is how many rows a day can have that are not indexed yet.
const unindexed = 8000

// batches are n records as the service would append them, so many a day, and
// how long parsing their lines took.
func (l *logBench) batches(n, day int) (out []logstore.Batch, parse time.Duration) {
	file := logstore.FileID{Dev: 1, Ino: 1, Path: l.days[0].path}
	d := logline.Defaults{Service: "vpnd", File: file.Path, Now: time.Now()}
	var e logEntry
	pos, at := int64(0), l.days[0]
	for n > 0 {
		g := at.traffic(0)
		at.from = at.from.AddDate(0, 0, -1)
		for left := min(n, day); left > 0; {
			b := logstore.Batch{File: file, From: pos}
			lines := make([][]byte, min(left, linesAWrite))
			for i := range lines {
				g.next(&e)
				lines[i] = e.appendLine(nil)
			}
			began := ownTime()
			for _, line := range lines {
				pos += int64(len(line))
				b.Rows = append(b.Rows, logstore.Row{Offset: pos, Record: logline.Parse(line[:len(line)-1], d)})
			}
			parse += ownTime() - began
			b.To = pos
			n, left = n-len(b.Rows), left-len(b.Rows)
			out = append(out, b)
		}
	}
	return out, parse
}

func fillStore(ctx context.Context, dir string, batches []logstore.Batch) (err error) {
	st, err := logstore.Open(ctx, logstore.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for _, b := range batches {
		if err := st.Append(ctx, b); err != nil {
			return err
		}
	}
	return st.Settle(ctx)
}
