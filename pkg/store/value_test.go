package store_test

import (
	"database/sql"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/store"
)

type (
	word  string
	level uint8
	blob  []byte
)

func roundTrip[T any](t *testing.T, db *store.DB, v T) {
	t.Helper()
	var got T
	err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.QueryRow("SELECT ?", v).Scan(&got) })
	if err != nil {
		t.Errorf("%T %v: %v", v, v, err)
		return
	}
	if d := cmp.Diff(v, got); d != "" {
		t.Errorf("%T: %s", v, d)
	}
}

func TestValuesComeBackAsTheyWent(t *testing.T) {
	db := fresh(t)
	name, none := word("w"), (*word)(nil)
	at := time.Date(2031, 2, 3, 4, 5, 6, 789_012_000, time.UTC)
	roundTrip(t, db, "text \x00 ü")
	roundTrip(t, db, "")
	roundTrip(t, db, name)
	roundTrip(t, db, &name)
	roundTrip(t, db, none)
	roundTrip(t, db, 42)
	roundTrip(t, db, int64(math.MinInt64))
	roundTrip(t, db, uint64(math.MaxInt64))
	roundTrip(t, db, level(255))
	roundTrip(t, db, true)
	roundTrip(t, db, false)
	roundTrip(t, db, 1.5)
	roundTrip(t, db, []byte{0, 1, 2})
	roundTrip(t, db, []byte(nil))
	roundTrip(t, db, blob{9})
	roundTrip(t, db, at)
	roundTrip(t, db, &at)
	roundTrip(t, db, (*time.Time)(nil))
	roundTrip(t, db, time.Time{})
	roundTrip(t, db, 3*time.Second)
	roundTrip(t, db, sql.Null[string]{V: "x", Valid: true})
	roundTrip(t, db, sql.Null[string]{})
}

func TestBadValuesAreErrors(t *testing.T) {
	db := fresh(t)
	scan := func(dest any, query string, args ...any) error {
		return db.Write(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query, args...).Scan(dest) })
	}
	for name, err := range map[string]error{
		"too big to bind":        scan(new(int), "SELECT ?", uint64(math.MaxUint64)),
		"unknown type to bind":   scan(new(int), "SELECT ?", struct{}{}),
		"too few parameters":     scan(new(int), "SELECT ? + ?", 1),
		"null into string":       scan(new(string), "SELECT NULL"),
		"overflow":               scan(new(int8), "SELECT 128"),
		"negative into unsigned": scan(new(uint), "SELECT -1"),
		"text into number":       scan(new(int), "SELECT '1'"),
		"text into time":         scan(new(time.Time), "SELECT '2020-01-01'"),
		"not a pointer":          scan(1, "SELECT 1"),
		"no such table":          scan(new(int), "SELECT 1 FROM nothing"),
		"two columns, one place": scan(new(int), "SELECT 1, 2"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := scan(new(int), "SELECT 1 WHERE 0"); !errors.Is(err, store.ErrNoRows) {
		t.Errorf("got %v, want ErrNoRows", err)
	}
}

func TestTimeIsMicrosecondsAndZeroStaysZero(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6007, time.FixedZone("x", 3600))
	if got, want := store.Time(store.FromTime(at)), at.Truncate(time.Microsecond).UTC(); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := store.Time(store.FromTime(time.Time{})); !got.IsZero() {
		t.Errorf("got %v, want zero", got)
	}
}

func TestResultTellsIDAndCount(t *testing.T) {
	db := fresh(t)
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec("INSERT INTO rows (id) VALUES (?), (?)", 7, 8); err != nil {
			return err
		}
		got, err := tx.Exec("UPDATE rows SET body = ?", []byte("x"))
		if d := cmp.Diff(store.Result{LastInsertID: 8, RowsAffected: 2}, got); d != "" {
			t.Error(d)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSameQueryNestedInItself(t *testing.T) {
	db := fresh(t)
	for i := range 4 {
		if err := insert(db, i); err != nil {
			t.Fatal(err)
		}
	}
	pairs := 0
	err := db.Read(t.Context(), func(q store.Querier) error {
		const all = "SELECT id FROM rows"
		outer, err := q.Query(all)
		if err != nil {
			return err
		}
		for outer.Next() {
			inner, err := q.Query(all)
			if err != nil {
				return err
			}
			for inner.Next() {
				pairs++
			}
			if err := inner.Err(); err != nil {
				return err
			}
		}
		return outer.Err()
	})
	if err != nil || pairs != 16 {
		t.Fatalf("got %d pairs and %v, want 16", pairs, err)
	}
}

func TestIsUniqueNamesTheConstraint(t *testing.T) {
	db := fresh(t)
	exec := func(sql string, args ...any) error {
		return db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(sql, args...); return err })
	}
	if err := exec("INSERT INTO people VALUES ('ann', 'a@x', 1, '10.0.0.1')"); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		"INSERT INTO people VALUES ('ann', 'b@x', 1, '10.0.0.2')": "people.name",
		"INSERT INTO people VALUES ('bob', 'A@X', 1, '10.0.0.2')": "people_mail",
		"INSERT INTO people VALUES ('bob', 'b@x', 1, '10.0.0.1')": "people.lane, people.addr",
		"INSERT INTO rows (id) VALUES (1), (1)":                   "rows.id",
	} {
		if got, ok := store.IsUnique(exec(sql)); !ok || got != want {
			t.Errorf("%s: got %q, %t, want %q", sql, got, ok, want)
		}
	}
	for _, err := range []error{nil, errNo, exec("INSERT INTO pets VALUES ('rex', 'nobody')"), exec("INSERT INTO pets VALUES ('rex', NULL)")} {
		if got, ok := store.IsUnique(err); ok {
			t.Errorf("%v: taken for a unique violation of %q", err, got)
		}
	}
}
