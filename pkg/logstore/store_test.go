package logstore_test

import (
	"context"
	"errors"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

func parse(t *testing.T, text string) logquery.Query {
	t.Helper()
	q, err := logquery.Parse(text, base)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// liveDays fills a store with n rows on each of three days.
func liveDays(t *testing.T, o logstore.Options, n int) *feed {
	t.Helper()
	f := &feed{s: openStore(t, o), seq: map[logstore.Day]int64{}}
	r := mrand.New(mrand.NewPCG(5, 5))
	for d := range 3 {
		var recs []logline.Record
		for i := range n {
			recs = append(recs, record(r, base.Add(time.Duration(d)*24*time.Hour+time.Duration(i)*time.Second)))
		}
		f.append(t, recs)
	}
	if err := f.s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.sort()
	return f
}

// templates are folders that liveDays made, by its number of rows. TestMain
// removes them.
var templates = struct {
	mu  sync.Mutex
	dir string
	by  map[int]*feed
}{by: map[int]*feed{}}

// threeDays is liveDays of a store that was closed since. It is made once and
// copied.
func threeDays(t *testing.T, o logstore.Options, n int) *feed {
	t.Helper()
	templates.mu.Lock()
	defer templates.mu.Unlock()
	var err error
	if templates.dir == "" {
		if templates.dir, err = os.MkdirTemp("", "logstore"); err != nil {
			t.Fatal(err)
		}
	}
	from := filepath.Join(templates.dir, strconv.Itoa(n))
	made := templates.by[n]
	if made == nil {
		made = liveDays(t, logstore.Options{Dir: from}, n)
		if err := made.s.Close(); err != nil {
			t.Fatal(err)
		}
		templates.by[n] = made
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(o.Dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return &feed{s: openStore(t, o), pos: made.pos, seq: maps.Clone(made.seq), have: slices.Clone(made.have)}
}

func (f *feed) check(t *testing.T) {
	t.Helper()
	pages(t, f.s, "everything", logquery.Query{}, f.have, true, 1000)
}

func TestWhatIsThereSurvivesReopening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := threeDays(t, logstore.Options{Dir: dir}, 3000)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	f.s = openStore(t, logstore.Options{Dir: dir})
	f.check(t)
	pos, err := f.s.Positions(t.Context())
	if err != nil || pos[source] != f.pos {
		t.Fatalf("position %d, want %d, %v", pos[source], f.pos, err)
	}
	f.append(t, []logline.Record{{Time: base, Message: "more"}})
	f.sort()
	f.check(t)
}

func TestBytesBroughtTwiceAreTakenOnce(t *testing.T) {
	t.Parallel()
	f := threeDays(t, logstore.Options{Dir: t.TempDir()}, 10)
	rec := logline.Record{Time: base.Add(time.Hour), Message: "again"}
	old := logstore.Batch{File: source, From: 0, To: f.pos, Rows: []logstore.Row{{Offset: 100, Record: rec}, {Offset: f.pos, Record: rec}}}
	if err := f.s.Append(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	f.check(t)
	// A file that was cut short begins anew.
	if err := f.s.Forget(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	f.pos = 0
	f.append(t, []logline.Record{rec})
	f.sort()
	f.check(t)
}

func TestPurgeRemovesWhatMatchesAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := threeDays(t, logstore.Options{Dir: dir}, 9000)
	for _, text := range []string{"user=alice level>=warn", "service=auth", "dur_ms>2000 !ok=true", "until=2026-03-02"} {
		q := parse(t, text)
		match := q.Matcher()
		want := map[logstore.Day]int64{}
		for _, r := range f.have {
			if match(&r.Record) {
				want[logstore.DayOf(r.Record.Time)]++
			}
		}
		for _, dry := range []bool{true, false} {
			got, err := f.s.Purge(t.Context(), q, dry)
			if err != nil {
				t.Fatal(err)
			}
			m := map[logstore.Day]int64{}
			for _, d := range got {
				m[d.Day] = d.Rows
			}
			equal(t, text, m, want)
			if dry {
				f.check(t)
			}
		}
		f.have = slices.DeleteFunc(f.have, func(r logstore.Found) bool { return match(&r.Record) })
		f.check(t)
		for _, by := range []string{"service", "level"} {
			groups, _, err := f.s.Stats(t.Context(), logquery.Query{}, logstore.Limits{}, by)
			if err != nil {
				t.Fatal(err)
			}
			sum, _ := f.have.stats(false, by)
			equal(t, by, groups, sum)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "2026-03-01.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty day is still there: %v", err)
	}
	f.seq[logstore.DayOf(base)] = 0 // a new file
	f.append(t, []logline.Record{{Time: base.Add(time.Minute), Message: "late"}})
	f.sort()
	f.check(t)
	_, err := f.s.Purge(t.Context(), logquery.Query{}, false)
	if !errors.Is(err, fault.Invalid) {
		t.Errorf("an empty purge: %v", err)
	}
	f.check(t)
}

func TestRetentionRemovesWholeDays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := base.Add(72 * time.Hour)
	f := threeDays(t, logstore.Options{Dir: dir, MaxAge: 30 * time.Hour, Now: func() time.Time { return now }}, 2000)
	gone, err := f.s.Retain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "by age", gone, []logstore.Day{logstore.DayOf(base)})
	f.have = f.have[2000:]
	f.check(t)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	f.s = openStore(t, logstore.Options{Dir: dir, MaxBytes: 1, Now: func() time.Time { return now }})
	if _, err := f.s.Retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.have = f.have[2000:] // the newest stays
	f.check(t)
	names, _ := filepath.Glob(filepath.Join(dir, "2026-03-0[12]*"))
	if len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	pos, err := f.s.Positions(t.Context())
	if err != nil || pos[source] != f.pos {
		t.Errorf("position %d, want %d, %v", pos[source], f.pos, err)
	}
}

func TestQueriesEndWhenTheyMust(t *testing.T) {
	t.Parallel()
	f := threeDays(t, logstore.Options{Dir: t.TempDir()}, 9000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.s.Count(ctx, parse(t, "dur_ms>3"), logstore.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := f.s.Count(t.Context(), parse(t, "dur_ms>3"), logstore.Limits{Time: time.Nanosecond}); !errors.Is(err, fault.Timeout) {
		t.Errorf("out of time: %v", err)
	}
	f.check(t)
	for _, cursor := range []string{"x", "1", "1.", ".1", "1.1.1", "1.-1", "zzzzzzzzzzzzzzzzzzz.1", "+1.1"} {
		if _, err := f.s.Query(t.Context(), logquery.Query{}, logstore.Page{Cursor: cursor}, logstore.Limits{}); !errors.Is(err, fault.Invalid) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	if _, err := f.s.Histogram(t.Context(), logquery.Query{}, logstore.Limits{}, 0, ""); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, _, err := f.s.Stats(t.Context(), logquery.Query{}, logstore.Limits{}, "time"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestTrickleIsMerged(t *testing.T) {
	t.Parallel()
	f := &feed{s: openStore(t, logstore.Options{Dir: t.TempDir()}), seq: map[logstore.Day]int64{}}
	r := mrand.New(mrand.NewPCG(2, 2))
	for i := range 1500 {
		f.append(t, []logline.Record{record(r, base.Add(time.Duration(i)*time.Second))})
	}
	if err := f.s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.sort()
	f.check(t)
}

// Queries see whole appends, in order, while others append, seal and remove.
func TestQueriesWhileRowsComeIn(t *testing.T) {
	t.Parallel()
	f := &feed{s: openStore(t, logstore.Options{Dir: t.TempDir()}), seq: map[logstore.Day]int64{}}
	stop := make(chan struct{})
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			last := int64(0)
			for {
				select {
				case <-stop:
					ended <- nil
					return
				default:
				}
				n, err := f.s.Count(context.Background(), logquery.Query{}, logstore.Limits{})
				if err == nil && (n < last || n%100 != 0) {
					err = errors.New("counted " + strconv.FormatInt(n, 10) + " after " + strconv.FormatInt(last, 10))
				}
				if err != nil {
					ended <- err
					return
				}
				last = n
				r, err := f.s.Query(context.Background(), logquery.Query{}, logstore.Page{}, logstore.Limits{Rows: 10})
				if err != nil || n > 0 && len(r.Rows) != 10 {
					ended <- errors.Join(err, errors.New("no page"))
					return
				}
			}
		}()
	}
	r := mrand.New(mrand.NewPCG(8, 8))
	for i := range 250 {
		var recs []logline.Record
		for k := range 100 {
			recs = append(recs, record(r, base.Add(time.Duration(i*100+k)*time.Second)))
		}
		f.append(t, recs)
		if i%50 == 49 {
			if _, err := f.s.Retain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	f.sort()
	f.check(t)
}
