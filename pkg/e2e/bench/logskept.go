//go:build linux

package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/lab"
)

const (
	logsMemoryGoal = 120 // MiB
	diskGoal       = 250 // bytes a row
	removeGoal     = 100 // ms
	daysDir        = "/var/lib/vpnd/logs/days"
	ownLog         = "/var/log/vpnd/logs/logs.log"
	removeMiB      = 16 // the least that can be configured
)

// logsKept is what the lines take, in memory and on disk.
func logsKept(ctx context.Context, s *suite) error {
	l := s.logs
	t, err := s.takeIn(ctx)
	if err != nil {
		return err
	}
	pid, err := s.logsProcess()
	if err != nil {
		return err
	}
	peak, now, err := resident(pid)
	if err != nil {
		return err
	}
	st, err := logs.GetStatus.Call(ctx, s.ops, nil)
	if err != nil {
		return err
	}
	m := result{Name: "logs-memory", What: "logs: peak memory of the service (RSS)", Unit: inMiB, Value: peak}
	m.goal("120 MiB", peak <= logsMemoryGoal)
	m.note("after all that was measured before, with %d lines kept; now %.1f MiB", st.Rows, now)
	m.note("the peak was %.0f MiB when the corpus was in%s", t.peak, asked(t.peakAsked))
	n := float64(l.rows)
	d := result{
		Name: "logs-disk", What: "logs: disk for a line, search included", Unit: inBytes,
		Value: float64(t.kept) / n, Floor: float64(t.bytes) / n, FloorIs: "the lines themselves",
	}
	d.goal("250 B", d.Value <= diskGoal)
	part, err := s.compressed(l.days[0].from)
	if err != nil {
		return err
	}
	d.note("gzip -6 would make %.0f %% of a day that has ended", 100*part)
	s.report.add(m)
	s.report.add(d)
	return nil
}

func asked(peak float64) string {
	if peak == 0 {
		return ""
	}
	return fmt.Sprintf(", %.0f MiB after the questions", peak)
}

// threadTime is the processor time of a process to the nanosecond, if none of
// its threads has ended, which Go keeps. A kernel that does not tell it knows
// whole ticks.
func threadTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(tasks) == 0 {
		ticks, err := processorTime(pid)
		return time.Duration(ticks) * time.Millisecond, err
	}
	sum := time.Duration(0)
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		text, _, _ := strings.Cut(string(data), " ")
		ns, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// resident is the greatest memory that a process had, and what it has, in MiB.
func resident(pid int) (peak, now float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseResident(string(data))
}

func parseResident(text string) (peak, now float64, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return 0, 0, err
		}
		switch f[0] {
		case "VmHWM:":
			peak = kib / 1024
		case "VmRSS:":
			now = kib / 1024
		}
	}
	if peak == 0 || now == 0 {
		return 0, 0, errors.New("no VmHWM and VmRSS in /proc/PID/status")
	}
	return peak, now, nil
}

// compressed is what part of a day's file gzip would leave, judged by one MiB
// of every eight.
func (s *suite) compressed(day time.Time) (float64, error) {
	var f *os.File
	err := s.Machine(lab.Server).Do(func() (err error) {
		f, err = os.Open(filepath.Join(daysDir, day.Format(time.DateOnly)+".db"))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	const piece = 1 << 20
	var out counter
	z, in := gzip.NewWriter(&out), int64(0)
	for at := int64(0); at < fi.Size(); at += 8 * piece {
		n, err := io.Copy(z, io.NewSectionReader(f, at, piece))
		if err != nil {
			return 0, err
		}
		in += n
	}
	if err := z.Close(); err != nil {
		return 0, err
	}
	return float64(out) / float64(in), nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// logsRemove lets the service find, at its start, that all old days are too
// much, and reads in its log how long each took to go.
func logsRemove(ctx context.Context, s *suite) error {
	l := s.logs
	if _, err := s.takeIn(ctx); err != nil {
		return err
	}
	// The newest day stays whatever it takes.
	g := newLogTraffic(uint64(len(l.days)), time.Now().UTC().Add(-busyLine), busyLine)
	if _, _, err := writeLogFile(filepath.Join(l.dir, "newest.log"), g, 1, "newest"); err != nil {
		return err
	}
	if err := s.logsFound(ctx, "newest", 10*time.Millisecond); err != nil {
		return err
	}
	if err := s.stop(ctx); err != nil {
		return err
	}
	var floor samples
	for _, d := range l.days {
		if err := floor.timed(func() error { return os.Remove(d.path) }); err != nil {
			return err
		}
	}
	if err := s.WriteConfig(s.Config() + l.config(removeMiB)); err != nil {
		return err
	}
	if _, err := s.start(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var times samples
	for len(times) < len(l.days) {
		data, err := s.Machine(lab.Server).ReadFile(ownLog)
		if err != nil {
			return err
		}
		if times, err = removals(string(data)); err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d days are removed: %w", len(times), len(l.days), err)
		}
	}
	r := result{
		Name: "logs-remove", What: "logs: an old day is removed, slowest", Unit: inMillis,
		Value: times.max(), Floor: floor.max(), FloorIs: "unlinking the file with the day's lines",
	}
	r.goal("100 ms", r.Value <= removeGoal)
	r.keep("days", times)
	r.keep("floor", floor)
	r.note("%d days of %d lines, by size, as the service's log tells; the first is counted from the service's start: %s", len(times), l.days[0].rows, times.list(inMillis))
	s.report.add(r)
	return nil
}

// removals is how long each day took to go since the service last started.
func removals(log string) (samples, error) {
	var out samples
	var last time.Time
	for line := range strings.Lines(log) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var e struct {
			At    time.Time `json:"ts"`
			Event string    `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("log of the log service: %w", err)
		}
		switch e.Event {
		case "started":
			out, last = nil, e.At
		case "day removed":
			out.add(e.At.Sub(last))
			last = e.At
		}
	}
	return out, nil
}
