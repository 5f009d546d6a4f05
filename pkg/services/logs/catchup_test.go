package logs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/logs"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// source appends lines that are numbered to a service whose files nobody reads.
type source struct {
	t   *testing.T
	s   *Service
	n   int
	end int64
}

func newSource(t *testing.T) *source {
	t.Helper()
	s, err := New(t.Context(), newConfig(t.TempDir()), Deps{StateDir: t.TempDir(), Log: discard(), Publish: func(events.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = s.saved.Close(), s.lines.Close() })
	return &source{t: t, s: s}
}

// add appends at once; back is how much a line may be older than now.
func (c *source) add(rows int, back time.Duration) {
	c.t.Helper()
	b := logstore.Batch{File: logstore.FileID{Ino: 1, Path: "x"}, From: c.end}
	for range rows {
		c.n, c.end = c.n+1, c.end+1
		when := time.Now().UTC().Add(-rand.N(back)).Truncate(time.Microsecond)
		b.Rows = append(b.Rows, logstore.Row{Offset: c.end, Record: logline.Record{Time: when, Message: strconv.Itoa(c.n)}})
	}
	b.To = c.end
	if err := c.s.append(c.t.Context(), []logstore.Batch{b}); err != nil {
		c.t.Fatal(err)
	}
}

// TestWhatComesWhileCatchingUpComesOnce has a reader that is slow while it is
// sent what it missed, so that what arrives meanwhile is too much to remember.
func TestWhatComesWhileCatchingUpComesOnce(t *testing.T) {
	c := newSource(t)
	const back = 30 * time.Hour // over a midnight
	c.s.batch = 1500            // so that it is read again while lines come
	c.add(2000, back)
	f, err := c.s.hub.join(func(*logline.Record) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	sent := 0
	everything := want(marks{0: {0, 0}}, true)
	bursts := 3
	err = c.s.catchUp(t.Context(), f, logquery.Query{}, everything, patience, func(r api.Record) error {
		got[r.Message]++
		if sent++; sent%100 == 0 && bursts > 0 {
			bursts--
			c.add(2*queueLines, back)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lines, lost, again := c.s.hub.take(f)
	for _, l := range lines {
		got[l.Record.Message]++
	}
	if len(got) != c.n || lost != 0 || again || bursts != 0 {
		t.Errorf("%d of %d lines came, %d lost", len(got), c.n, lost)
	}
	for m, times := range got {
		if times != 1 {
			t.Errorf("line %s came %d times", m, times)
		}
	}
}

// TestMissedLinesComeInTheOrderOfArrival even when their times do not rise and
// they are more than fit into memory: only so can a reader go on in between.
func TestMissedLinesComeInTheOrderOfArrival(t *testing.T) {
	c := newSource(t)
	c.add(1, time.Second)
	since, err := c.s.query(t.Context(), &api.QueryRequest{Limit: 1, Order: "newest"})
	if err != nil {
		t.Fatal(err)
	}
	c.s.batch = 500
	const missed = 1100
	for n := 0; n < missed; n += 50 {
		c.add(50, time.Second) // less than the time since, in which midnight may be
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	last := logstore.ID{}
	n := 0
	err = c.s.follow(ctx, &api.FollowRequest{Since: since.Items[0].ID}, func(r api.Record) error {
		id, err := logstore.ParseID(r.ID)
		if err != nil || n > 0 && !arrivedBefore(last, id) {
			return fmt.Errorf("%s comes after %s: %v", r.ID, last, err)
		}
		last = id
		if n++; n == missed {
			cancel()
		}
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) || n != missed {
		t.Errorf("%d of %d lines came, %v", n, missed, err)
	}
}

// TestASlowReaderIsToldHowManyLinesItMissed has one stop reading while more
// lines come than are remembered for it, and counts what it got and missed.
func TestASlowReaderIsToldHowManyLinesItMissed(t *testing.T) {
	c := newSource(t)
	const total = patience + 2*queueLines
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, written := make(chan struct{}), make(chan struct{})
	got, missed, gaps, last := 0, 0, 0, 0
	ended := make(chan error, 1)
	go func() {
		ended <- c.s.follow(ctx, &api.FollowRequest{}, func(r api.Record) error {
			if got == 0 {
				close(first)
				<-written
			}
			n, err := strconv.Atoi(r.Message)
			if err != nil || n != last+1+int(r.Missed) {
				return fmt.Errorf("line %s with %d missed comes behind %d: %v", r.Message, r.Missed, last, err)
			}
			if last = n; r.Missed > 0 {
				gaps++
			}
			missed += int(r.Missed)
			if got++; n == total {
				cancel()
			}
			return nil
		})
	}()
	for deadline := time.Now().Add(20 * time.Second); c.s.hub.count() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody follows")
		}
	}
	c.add(1, time.Millisecond)
	<-first
	for c.n < total {
		c.add(min(4000, total-c.n), time.Millisecond)
	}
	close(written)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got+missed != total || gaps != 1 || got <= queueLines {
		t.Errorf("%d lines came, %d were missed at %d places; %d were written", got, missed, gaps, total)
	}
}

func TestAReaderNamesTheLinesItSawLast(t *testing.T) {
	day := time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)
	id := func(t time.Time, seq int64) string { return logstore.ID{Time: t.UnixMicro(), Seq: seq}.String() }
	m, err := marksOf(id(day, 7) + "," + id(day.Add(time.Hour), 3) + "," + id(day.AddDate(0, 0, 2), 1))
	first, second := logstore.DayOf(day), logstore.DayOf(day.AddDate(0, 0, 2))
	if err != nil || len(m) != 2 || m[first].seq != 8 || m[second].seq != 2 || m[first].time != day.UnixMicro() {
		t.Errorf("%+v, %v", m, err)
	}
	w := want(m, true)
	for _, tc := range []struct {
		t    time.Time
		seq  int64
		want bool
	}{{day, 7, false}, {day, 8, true}, {day.AddDate(0, 0, 1), 0, true}, {day.AddDate(0, 0, 2), 2, true}, {day.AddDate(0, 0, 3), 0, true}, {day.AddDate(0, 0, -1), 99, false}} {
		if got := w.has(logstore.ID{Time: tc.t.UnixMicro(), Seq: tc.seq}); got != tc.want {
			t.Errorf("%v, %d: %v", tc.t, tc.seq, got)
		}
	}
	for _, bad := range []string{"x", "1.1,", ",", strings.Repeat("1.1,", maxSince) + "1.1"} {
		if _, err := marksOf(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestAnExportComesToItsEnd though lines come faster than they are read.
func TestAnExportComesToItsEnd(t *testing.T) {
	c := newSource(t)
	c.add(5000, time.Microsecond)
	sent := 0
	err := c.s.export(t.Context(), &api.Ask{}, func(api.Record) error {
		if sent++; sent%1000 == 0 {
			c.add(1500, time.Microsecond)
		}
		if sent > 20_000 {
			return errors.New("it has no end")
		}
		return nil
	})
	if err != nil || sent != 5000 {
		t.Errorf("%d lines of 5000, %v", sent, err)
	}
}
