//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vpnd/pkg/api/logs"
)

const (
	busyEnd  = "busy_end" // request id of the last line
	busyLine = time.Millisecond
	busyMost = 3 // times what is allowed when nothing else happens
)

// logsBusy puts the questions that have a goal, in turns, while the service
// takes in a file as fast as it can.
func logsBusy(ctx context.Context, s *suite) error {
	l := s.logs
	if _, err := s.takeIn(ctx); err != nil {
		return err
	}
	if l.quiet == nil {
		var err error
		if l.quiet, err = s.answers(ctx, false); err != nil {
			return err
		}
	}
	lines := pick(s.options, 1_000_000, 150_000)
	name := "busy.log"
	from := time.Now().UTC().Add(-time.Duration(lines) * busyLine)
	if _, _, err := writeLogFile(filepath.Join(l.stage, name), newLogTraffic(uint64(len(l.days)), from, busyLine), lines, busyEnd); err != nil {
		return err
	}
	if _, err := s.logsQuiet(ctx); err != nil {
		return err
	}
	ctx, cancel := takenInTime(ctx, lines)
	defer cancel()
	before, err := logs.GetStatus.Call(ctx, s.ops, nil)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := os.Rename(filepath.Join(l.stage, name), filepath.Join(l.dir, name)); err != nil {
		return err
	}
	for {
		st, err := logs.GetStatus.Call(ctx, s.ops, nil)
		if err != nil {
			return err
		}
		if st.LinesIn > before.LinesIn {
			break
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	busy, taken := context.WithCancel(ctx)
	defer taken()
	var took time.Duration
	end := make(chan error, 1)
	go func() {
		defer taken()
		err := s.logsFound(ctx, busyEnd, 50*time.Millisecond)
		took = time.Since(began)
		end <- err
	}()
	times := make([]samples, len(l.quiet))
	for i := 0; busy.Err() == nil; i = (i + 1) % len(l.quiet) {
		q := l.quiet[i].question
		if q.goal == 0 {
			continue
		}
		err := times[i].timed(func() error { _, err := q.ask(busy, s.ops); return err })
		if err != nil && busy.Err() == nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	if err := <-end; err != nil {
		return err
	}
	rate := float64(lines) / took.Seconds()
	for _, kind := range []askKind{findNewest, findText, countDay, analyse} {
		l.reportBusy(s.report, kind, times, rate)
	}
	return nil
}

// reportBusy is one line for all questions of a kind: the worst of their
// medians.
func (l *logBench) reportBusy(rep *report, kind askKind, times []samples, rate float64) {
	r := result{
		Name: "logs-busy", What: fmt.Sprintf("logs, %s during full ingest, slowest question's median", kind.what), Unit: inMillis,
		FloorIs: "the same question's median while nothing else happens",
	}
	for i, a := range l.quiet {
		if a.askKind != kind {
			continue
		}
		if m := times[i].median(); m >= r.Value {
			r.Value, r.Floor = m, a.times.median()
		}
		r.keep(a.name, times[i])
		r.note("%s: p50 %.2f, worst %.2f ms, n=%d", a.name, times[i].median(), times[i].max(), len(times[i]))
	}
	r.goal(fmt.Sprintf("%.0f ms", busyMost*kind.goal), r.Value <= busyMost*kind.goal)
	r.note("meanwhile %.0f lines/s were taken in", rate)
	rep.add(r)
}
