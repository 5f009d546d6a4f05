package store_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

func openWith(t *testing.T, path string, steps ...store.Migration) (applied []string, err error) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: path, Migrations: steps})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	err = db.Read(t.Context(), func(q store.Querier) error {
		rows, err := q.Query("SELECT name FROM store_migrations ORDER BY step")
		if err != nil {
			return err
		}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			applied = append(applied, name)
		}
		return rows.Err()
	})
	return applied, err
}

var (
	one   = store.Migration{Name: "one", SQL: "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent (id) ON DELETE CASCADE)"}
	two   = store.Migration{Name: "two", SQL: "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)"}
	three = store.Migration{Name: "three", SQL: "CREATE TABLE p2 (id INTEGER PRIMARY KEY, n TEXT); INSERT INTO p2 (id) SELECT id FROM parent; DROP TABLE parent; ALTER TABLE p2 RENAME TO parent"}
)

func TestMigrationsRunOnceInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for _, steps := range [][]store.Migration{{one}, {one, two}, {one, two}, {one, two, three}} {
		got, err := openWith(t, path, steps...)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, s := range steps {
			want = append(want, s.Name)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	}
	db, err := store.Open(t.Context(), store.Options{Path: path, Migrations: []store.Migration{one, two, three}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// Step three replaced the parent table; the child rows must have survived,
	// and the reference must be enforced again.
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		var children int
		if err := tx.QueryRow("SELECT count(*) FROM child").Scan(&children); err != nil || children != 1 {
			t.Errorf("got %d children and %v, want 1", children, err)
		}
		_, err := tx.Exec("INSERT INTO child VALUES (99)")
		return err
	})
	if err == nil {
		t.Error("foreign keys are off after a migration")
	}
}

func TestFailingMigrationLeavesTheOldVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for name, bad := range map[string]string{
		"sql":       "CREATE TABLE extra (x); INSERT INTO missing VALUES (1)",
		"reference": "CREATE TABLE extra (x); INSERT INTO child VALUES (12345)",
		"ends":      "CREATE TABLE extra (x); ROLLBACK",
	} {
		_, err := openWith(t, path, one, two, store.Migration{Name: "bad", SQL: bad})
		if err == nil || !strings.Contains(err.Error(), "migration 3 (bad)") {
			t.Errorf("%s: got %v", name, err)
		}
		got, err := openWith(t, path, one, two)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff([]string{"one", "two"}, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if _, err := openWith(t, path, one, two, store.Migration{Name: "probe", SQL: "CREATE TABLE extra (x); DROP TABLE extra; SELECT 1 FROM missing"}); err == nil ||
			!strings.Contains(err.Error(), "missing") {
			t.Errorf("%s: a table of the failed migration stayed: %v", name, err)
		}
	}
}

func TestNewerAndForeignDatabasesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if _, err := openWith(t, path, one, two); err != nil {
		t.Fatal(err)
	}
	_, err := openWith(t, path, one)
	if !errors.Is(err, fault.Unavailable) || fault.ReasonOf(err) != "newer_database" || fault.From(err).Hint == "" {
		t.Errorf("newer: got %v", err)
	}
	_, err = openWith(t, path, one, three)
	if !errors.Is(err, fault.Unavailable) || fault.ReasonOf(err) != "other_database" {
		t.Errorf("foreign: got %v", err)
	}
}
