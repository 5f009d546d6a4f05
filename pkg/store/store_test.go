package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

func schema() []store.Migration {
	return []store.Migration{
		{Name: "rows", SQL: `CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB) STRICT`},
		{Name: "people", SQL: `
			CREATE TABLE people (name TEXT PRIMARY KEY, mail TEXT, lane INTEGER NOT NULL DEFAULT 0, addr TEXT);
			CREATE UNIQUE INDEX people_mail ON people (lower(mail));
			CREATE UNIQUE INDEX people_addr ON people (lane, addr);
			CREATE TABLE pets (name TEXT, owner TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE)`},
	}
}

func open(t testing.TB, path string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func fresh(t testing.TB) *store.DB { return open(t, filepath.Join(t.TempDir(), "a.db")) }

func insert(db *store.DB, id int) error {
	return db.Write(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("INSERT INTO rows (id) VALUES (?)", id)
		return err
	})
}

func ids(t testing.TB, db *store.DB) []int {
	t.Helper()
	var got []int
	err := db.Read(context.Background(), func(q store.Querier) error {
		rows, err := q.Query("SELECT id FROM rows ORDER BY id")
		if err != nil {
			return err
		}
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				return err
			}
			got = append(got, id)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "odd name?%41#.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	db := open(t, path)
	if err := insert(db, 1); err != nil {
		t.Fatal(err)
	}
	got := map[string]fs.FileMode{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		got[strings.TrimPrefix(e.Name(), filepath.Base(path))] = info.Mode()
	}
	want := map[string]fs.FileMode{"": 0o600, "-wal": 0o600, "-shm": 0o600, ".lock": 0o600}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestConnectionsAreDurableAndSmall(t *testing.T) {
	db := fresh(t)
	pragmas := func(q store.Querier) map[string]string {
		got := map[string]string{}
		for _, p := range []string{"journal_mode", "synchronous", "foreign_keys", "cache_size", "busy_timeout", "query_only"} {
			var v any
			if err := q.QueryRow("PRAGMA " + p).Scan(&v); err != nil {
				// busy_timeout names its column differently, nothing else can fail
				t.Error(p, err)
			}
			switch v := v.(type) {
			case int64:
				got[p] = strconv.FormatInt(v, 10)
			case string:
				got[p] = v
			}
		}
		return got
	}
	var writer, reader map[string]string
	if err := db.Write(t.Context(), func(tx *store.Tx) error { writer = pragmas(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := db.Read(t.Context(), func(q store.Querier) error { reader = pragmas(q); return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1",
		"cache_size": "-1024", "busy_timeout": "5000", "query_only": "0"}
	if d := cmp.Diff(want, writer); d != "" {
		t.Error("writer", d)
	}
	want["cache_size"], want["query_only"] = "-512", "1"
	if d := cmp.Diff(want, reader); d != "" {
		t.Error("reader", d)
	}
}

func TestSecondOpenIsRefusedWithThePid(t *testing.T) {
	t.Parallel()
	db := fresh(t)
	path := dbPath(t, db)
	_, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if !errors.Is(err, fault.Unavailable) || fault.ReasonOf(err) != "in_use" ||
		!strings.Contains(err.Error(), "already in use by pid "+strconv.Itoa(os.Getpid())) {
		t.Fatalf("got %v", err)
	}
}

func TestOpenWaitsForThePredecessor(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	first, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		db, err := store.Open(context.Background(), store.Options{Path: path, Migrations: schema()})
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	time.AfterFunc(50*time.Millisecond, func() { _ = first.Close() })
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestOpenGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	path := dbPath(t, fresh(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := store.Open(ctx, store.Options{Path: path}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestMissingFolderSaysSo(t *testing.T) {
	_, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "no", "a.db")})
	f := fault.From(err)
	if f.Code != fault.Unavailable || f.Reason != "disk_error" || f.Hint == "" {
		t.Fatalf("got %#v", f)
	}
}

func TestReadIsASnapshot(t *testing.T) {
	db := fresh(t)
	if err := insert(db, 1); err != nil {
		t.Fatal(err)
	}
	err := db.Read(t.Context(), func(q store.Querier) error {
		var before, after int
		if err := q.QueryRow("SELECT count(*) FROM rows").Scan(&before); err != nil {
			return err
		}
		if err := insert(db, 2); err != nil {
			return err
		}
		if err := q.QueryRow("SELECT count(*) FROM rows").Scan(&after); err != nil {
			return err
		}
		if before != 1 || after != 1 {
			t.Errorf("got %d then %d rows in one snapshot, want 1 and 1", before, after)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{1, 2}, ids(t, db)); d != "" {
		t.Error(d)
	}
}

func TestReadCannotWrite(t *testing.T) {
	db := fresh(t)
	err := db.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow("INSERT INTO rows (id) VALUES (1) RETURNING id").Scan(new(int))
	})
	if err == nil || len(ids(t, db)) != 0 {
		t.Fatalf("got %v and %v", err, ids(t, db))
	}
}

func TestRowsLeftOpenDoNotHoldTheSnapshot(t *testing.T) {
	db := fresh(t)
	for i := range 3 {
		if err := insert(db, i); err != nil {
			t.Fatal(err)
		}
	}
	var kept *store.Rows
	for range 20 {
		err := db.Read(t.Context(), func(q store.Querier) (err error) {
			if kept, err = q.Query("SELECT id FROM rows"); err == nil {
				kept.Next()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if kept.Next() || kept.Scan(new(int)) == nil {
		t.Error("rows outlived their Read")
	}
	if err := insert(db, 3); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{0, 1, 2, 3}, ids(t, db)); d != "" {
		t.Error(d)
	}
}

func TestReadersAreOpenedOnlyWhenNeeded(t *testing.T) {
	db := fresh(t)
	for range 10 {
		ids(t, db)
	}
	if got := db.Connections(); got != 1 {
		t.Fatalf("got %d reader connections after reads one by one, want 1", got)
	}
}

func TestReadHonoursItsContext(t *testing.T) {
	db := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := db.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n")
		if err != nil {
			return err
		}
		for rows.Next() {
			cancel()
		}
		return rows.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestCloseFinishesTheQueueAndRefusesLater(t *testing.T) {
	db := fresh(t)
	path := dbPath(t, db)
	inside, release := make(chan struct{}), make(chan struct{})
	results := make(chan error, 6)
	go func() {
		results <- db.Write(context.Background(), func(tx *store.Tx) error {
			close(inside)
			<-release
			_, err := tx.Exec("INSERT INTO rows (id) VALUES (100)")
			return err
		})
	}()
	<-inside
	for i := range 5 {
		go func() { results <- insert(db, i) }()
	}
	await(t, "five queued writes", func() bool { return db.Waiting() == 5 })
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	await(t, "close to queue", func() bool { return db.Waiting() == 6 })
	if err := insert(db, 50); !errors.Is(err, fault.Unavailable) {
		t.Errorf("write after close: got %v", err)
	}
	close(release)
	for range 6 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if err := db.Read(t.Context(), func(store.Querier) error { return nil }); !errors.Is(err, fault.Unavailable) {
		t.Errorf("read after close: got %v", err)
	}
	if d := cmp.Diff([]int{0, 1, 2, 3, 4, 100}, ids(t, open(t, path))); d != "" {
		t.Error(d)
	}
}

func TestForeignFileIsReportedAsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	f := fault.From(err)
	if f.Code != fault.Internal || f.Reason != "corrupt" || !strings.Contains(f.Hint, path) {
		t.Fatalf("got %#v", f)
	}
}

func dbPath(t testing.TB, db *store.DB) string {
	t.Helper()
	var path string
	if err := db.Read(context.Background(), func(q store.Querier) error {
		return q.QueryRow("SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&path)
	}); err != nil {
		t.Fatal(err)
	}
	return path
}
