package logstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

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
