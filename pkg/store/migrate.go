package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vpnd/pkg/fault"
)

// Migration is one step of a schema's history. The list is append-only: a
// released step is never edited, renamed, moved or removed. SQL may hold
// several statements and must not begin or end transactions.
type Migration struct {
	Name string
	SQL  string
}

const migrationTable = `CREATE TABLE IF NOT EXISTS store_migrations (
	step       INTEGER PRIMARY KEY,
	name       TEXT NOT NULL,
	applied_at INTEGER NOT NULL
) STRICT`

// migrate applies the steps the database does not have, each in one durable
// transaction with its own record.
func (db *DB) migrate(ctx context.Context, steps []Migration) error {
	applied, err := db.applied()
	if err != nil {
		return err
	}
	if err := db.comparable(applied, steps); err != nil {
		return err
	}
	if len(applied) == len(steps) {
		return nil
	}
	// Rebuilding a table drops the old one, which with enforcement on would
	// delete the rows that refer to it. The pragma does nothing inside a
	// transaction; each step checks the references before it commits.
	if err := db.exec("PRAGMA foreign_keys = OFF"); err != nil {
		return err
	}
	for i := len(applied); i < len(steps); i++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("migrate %s: %w", db.path, err)
		}
		if err := db.applyStep(i+1, steps[i]); err != nil {
			return db.classify(fmt.Errorf("migration %d (%s) of %s: %w", i+1, steps[i].Name, db.path, err))
		}
		db.log.Info("database migrated", "path", db.path, "step", i+1, "name", steps[i].Name)
	}
	return db.exec("PRAGMA foreign_keys = ON")
}

// applied lists the names of the recorded steps, oldest first.
func (db *DB) applied() ([]string, error) {
	if err := db.exec(migrationTable); err != nil {
		return nil, err
	}
	s := &session{db: db, conn: db.writer, ctx: context.Background()}
	defer s.end()
	rows, err := s.Query("SELECT name FROM store_migrations ORDER BY step")
	if err != nil {
		return nil, err
	}
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// comparable refuses a database whose history is not the beginning of ours.
func (db *DB) comparable(applied []string, steps []Migration) error {
	for i, name := range applied {
		if i >= len(steps) {
			return fault.New(fault.Unavailable, "database %s was written by a newer version: it has %d migrations (last: %s), this program knows %d",
				db.path, len(applied), applied[len(applied)-1], len(steps)).
				WithReason("newer_database").
				WithHint("install the version of vpnd that wrote it, or a newer one, or restore a backup")
		}
		if steps[i].Name != name {
			return fault.New(fault.Unavailable, "database %s has migration %d %q where this program has %q",
				db.path, i+1, name, steps[i].Name).
				WithReason("other_database").
				WithHint("this file belongs to another service or another build of vpnd")
		}
	}
	return nil
}

func (db *DB) applyStep(step int, m Migration) (err error) {
	w := db.writer
	if err := w.step(w.begin); err != nil {
		return err
	}
	tx := &Tx{session: session{db: db, conn: w, ctx: context.Background()}}
	defer func() {
		tx.end()
		if err != nil && !w.raw.AutoCommit() {
			err = errors.Join(err, w.step(w.rollback))
		}
	}()
	if _, err := tx.Exec(m.SQL); err != nil {
		return err
	}
	if w.raw.AutoCommit() {
		return errors.New("it ended its transaction")
	}
	var table string
	switch err := tx.QueryRow("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1").Scan(&table); {
	case err == nil:
		return fmt.Errorf("it leaves rows of table %s that refer to missing rows", table)
	case !errors.Is(err, ErrNoRows):
		return err
	}
	_, err = tx.Exec("INSERT INTO store_migrations (step, name, applied_at) VALUES (?, ?, ?)",
		step, m.Name, time.Now())
	if err != nil {
		return err
	}
	return w.step(w.commit)
}

// exec runs a statement of the package itself, outside transactions.
func (db *DB) exec(query string) error {
	_, err := db.writer.raw.ExecContext(context.Background(), query, nil)
	return db.classify(err)
}
