package logstore_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// counted are lexicons that no segment names, in both tables, and all chunks.
const counted = "SELECT count(DISTINCT id>>24) FROM leaf WHERE id>>24 NOT IN (SELECT lexicon FROM segment) UNION ALL " +
	"SELECT count(DISTINCT lexicon) FROM lexeme WHERE lexicon NOT IN (SELECT lexicon FROM segment) UNION ALL SELECT count(DISTINCT id>>16) FROM block"

func counts(t *testing.T, db *sql.DB) (out [3]int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), counted)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for i := 0; rows.Next(); i++ {
		if err := rows.Scan(&out[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// appendTraffic appends lines of the first day, a second apart.
func (f *feed) appendTraffic(t *testing.T, batches, size int) {
	t.Helper()
	g := newTraffic()
	for n := range batches {
		var recs []logline.Record
		for i := range size {
			rec := g.next()
			rec.Time = base.Add(time.Duration(n*size+i) * time.Second)
			recs = append(recs, rec)
		}
		f.append(t, recs)
	}
}

// closed closes the store and opens the file of the first day.
func (f *feed) closed(t *testing.T, dir string) *sql.DB {
	t.Helper()
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, logstore.DayOf(base).String()+".db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// A process was killed while it joined segments: part of a lexicon and a chunk
// are written that no segment names, and old ones are not removed yet.
func TestWhatAKilledProcessWasJoiningIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := base.Add(36 * time.Hour)
	o := logstore.Options{Dir: dir, Now: func() time.Time { return now }}
	f := &feed{s: openStore(t, o), seq: map[logstore.Day]int64{}}
	f.s.SetChunkRows(100)
	f.appendTraffic(t, 20, 100)
	if err := f.s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.sort()
	f.check(t)
	db := f.closed(t, dir)
	whole := counts(t, db)
	if whole[0] != 0 || whole[1] != 0 || whole[2] != 20 {
		t.Fatalf("a day that was closed has %v", whole)
	}
	for _, change := range []string{
		"INSERT INTO leaf SELECT (id&0xffffff)|((SELECT no FROM next)<<24), data FROM leaf WHERE id>>24=(SELECT max(id>>24) FROM leaf)",
		"INSERT INTO lexeme SELECT (SELECT no FROM next), first, 0 FROM lexeme WHERE lexicon=(SELECT max(lexicon) FROM lexeme)",
		"INSERT INTO block SELECT (id&0xffff)|(((SELECT no FROM next)+1)<<16), data FROM block WHERE id>>16 IN (SELECT min(id>>16) FROM block)",
		"UPDATE next SET no=no+2",
	} {
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
	}
	if c := counts(t, db); c[0] != 1 || c[1] != 1 || c[2] != 21 {
		t.Fatalf("the damage was not done: %v", c)
	}
	f.s = openStore(t, o)
	f.check(t)
	f.append(t, []logline.Record{{Time: now, Message: "the day has passed"}})
	if _, err := f.s.Retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.check(t)
	if c := counts(t, db); c != whole {
		t.Errorf("%v are there, want %v", c, whole)
	}
}

// Rows are purged while their segments are being joined, by turns: none may be
// left, and none lost that was not meant.
func TestPurgeWhileSegmentsAreJoined(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := &feed{s: openStore(t, logstore.Options{Dir: dir}), seq: map[logstore.Day]int64{}}
	f.s.SetChunkRows(60)
	q, err := logquery.Parse("user=user7*", base)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if _, err := f.s.Purge(t.Context(), q, false); err != nil {
				ended <- err
				return
			}
		}
	}()
	f.appendTraffic(t, 150, 40)
	if err := f.s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := f.s.Purge(t.Context(), q, false); err != nil {
		t.Fatal(err)
	}
	match := q.Matcher()
	var left oracle
	for _, r := range f.have {
		if !match(&r.Record) {
			left = append(left, r)
		}
	}
	if len(left) == len(f.have) {
		t.Fatal("nothing was to be purged")
	}
	f.have = left
	f.sort()
	f.check(t)
	db := f.closed(t, dir)
	if c := counts(t, db); c[0] != 0 || c[1] != 0 {
		t.Errorf("%d lexicons and %d of their lists are left over", c[0], c[1])
	}
}
