package logstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// numbered makes a batch of rows from..to; row n says n and ends at 100*(n+1).
func numbered(file logstore.FileID, from, to int, at func(n int) time.Time) logstore.Batch {
	b := logstore.Batch{File: file, From: int64(from) * 100, To: int64(to) * 100}
	for n := from; n < to; n++ {
		b.Rows = append(b.Rows, logstore.Row{Offset: int64(n+1) * 100, Record: logline.Record{Time: at(n), Message: strconv.Itoa(n), File: file.Path}})
	}
	return b
}

// stored is what the store has, by file and message.
func stored(t *testing.T, s *logstore.Store) map[string]logstore.Found {
	t.Helper()
	out := map[string]logstore.Found{}
	err := s.Each(t.Context(), logquery.Query{}, func(f logstore.Found) error {
		key := f.Record.File + " " + f.Record.Message
		if _, twice := out[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		out[key] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantNew(t *testing.T, s *logstore.Store, b logstore.Batch, isNew func(n int) bool) {
	t.Helper()
	have := stored(t, s)
	last := map[logstore.Day]int64{}
	for i, r := range b.Rows {
		if r.New != isNew(i) {
			t.Errorf("row %d: new is %t", i, r.New)
		}
		if !r.New {
			if r.ID != (logstore.ID{}) {
				t.Errorf("row %d is not new and has the id %v", i, r.ID)
			}
			continue
		}
		f := have[b.File.Path+" "+r.Record.Message]
		if r.ID != f.ID || !r.Record.Time.Equal(f.Record.Time) || r.ID.Time != r.Record.Time.UnixMicro() {
			t.Errorf("row %d: id %v at %v, in the store %v at %v", i, r.ID, r.Record.Time, f.ID, f.Record.Time)
		}
		day := logstore.DayOf(r.Record.Time)
		if before, ok := last[day]; ok && r.ID.Seq <= before {
			t.Errorf("row %d: number %d after %d", i, r.ID.Seq, before)
		}
		last[day] = r.ID.Seq
	}
}

func TestAppendTellsIDs(t *testing.T) {
	t.Parallel()
	s := openStore(t, logstore.Options{Dir: t.TempDir()})
	other := logstore.FileID{Dev: 1, Ino: 9, Path: "/var/log/other.log"}
	at := func(n int) time.Time {
		return base.Add(time.Duration(n)*time.Second + time.Duration(n%3)*24*time.Hour)
	}
	batches := []logstore.Batch{numbered(source, 0, 5000, at), numbered(other, 0, 10, at)}
	if err := s.AppendAll(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	yes := func(int) bool { return true }
	wantNew(t, s, batches[0], yes)
	wantNew(t, s, batches[1], yes)
	again := []logstore.Batch{numbered(source, 4000, 5010, at), numbered(other, 0, 10, at)}
	if err := s.AppendAll(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	wantNew(t, s, again[0], func(i int) bool { return i >= 1000 })
	wantNew(t, s, again[1], func(int) bool { return false })
	// The same slice, with what an earlier append wrote into it.
	if err := s.AppendAll(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	wantNew(t, s, batches[0], func(int) bool { return false })
}

// What an append brought before it failed is in by then or comes in with the
// next; whoever brings it again learns its ids, once.
func TestAppendThatFailedTellsIDsLater(t *testing.T) {
	t.Parallel()
	for _, blocked := range []string{"2026-03-01.db", "2026-03-02.db", "2026-03-03.db"} {
		dir := t.TempDir()
		s := openStore(t, logstore.Options{Dir: dir})
		if err := os.Mkdir(filepath.Join(dir, blocked), 0o700); err != nil {
			t.Fatal(err)
		}
		at := func(n int) time.Time { return base.Add(time.Duration(n%3) * 24 * time.Hour) }
		b := numbered(source, 0, 30, at)
		if err := s.Append(t.Context(), b); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("%s is a folder: %v", blocked, err)
		}
		wantNew(t, s, b, func(int) bool { return false })
		if err := os.Remove(filepath.Join(dir, blocked)); err != nil {
			t.Fatal(err)
		}
		// Somebody else's lines come first. They are not told of these.
		other := numbered(logstore.FileID{Dev: 7, Path: "/other"}, 0, 3, at)
		if err := s.Append(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		wantNew(t, s, other, func(int) bool { return true })
		// Lines without a time have another one when they are read again.
		b = numbered(source, 0, 33, func(n int) time.Time { return at(n).Add(time.Hour) })
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		wantNew(t, s, b, func(int) bool { return true })
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		wantNew(t, s, b, func(int) bool { return false })
		if n := len(stored(t, s)); n != 36 {
			t.Errorf("%d rows, want 36", n)
		}
	}
}
