package logstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logstore"
)

// logSizes are the lengths of the days' logs.
func logSizes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "2*-wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if fi, err := os.Stat(name); err == nil {
			sum += fi.Size()
		}
	}
	return sum
}

func TestLogsAreEmptiedWhenNothingComesIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := liveDays(t, logstore.Options{Dir: dir}, 9000)
	for deadline := time.Now().Add(time.Minute); logSizes(t, dir) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are left in the logs", logSizes(t, dir))
		}
		f.check(t)
	}
	f.check(t)
}

// A power failure is not tried out here, but what it relies on: no position in
// state.db is ahead of what the days have.
func TestPositionsAreWrittenDownByThemselves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := liveDays(t, logstore.Options{Dir: dir}, 100)
	deadline := time.Now().Add(time.Minute)
	for noted(t, dir) < f.pos {
		if time.Now().After(deadline) {
			t.Fatal("the position is not written down")
		}
		f.check(t)
	}
}

// noted is the position that state.db has.
func noted(t *testing.T, dir string) (pos int64) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "state.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT coalesce(max(pos), 0) FROM file").Scan(&pos); err != nil {
		t.Fatal(err)
	}
	return pos
}

// Rows that wait are searched one by one: those of a day that has passed must not
// wait for the next round of retention.
func TestAPassedDayIsIndexedWhenItIsQuiet(t *testing.T) {
	t.Parallel()
	f := &feed{s: openStore(t, logstore.Options{Dir: t.TempDir()}), seq: map[logstore.Day]int64{}}
	f.s.SetQuiet(1)
	f.append(t, []logline.Record{{Time: base, Message: "yesterday"}, {Time: base.Add(time.Hour), Message: "too"}})
	f.append(t, []logline.Record{{Time: base.Add(24 * time.Hour), Message: "today"}})
	for deadline := time.Now().Add(time.Minute); len(f.s.Chunks(t)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it was never indexed")
		}
	}
	f.check(t)
	f.append(t, []logline.Record{{Time: base.Add(2 * time.Hour), Message: "late"}, {Time: base.Add(25 * time.Hour), Message: "later"}})
	f.sort()
	f.check(t)
}
