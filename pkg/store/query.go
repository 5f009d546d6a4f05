package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// ErrNoRows is what Row.Scan returns when the query found nothing.
var ErrNoRows = sql.ErrNoRows

// Querier reads. Statements are prepared once per connection and kept, so a
// query text should be a constant with ? parameters.
type Querier interface {
	// Query runs a statement that returns rows.
	Query(query string, args ...any) (*Rows, error)
	// QueryRow runs a statement for its first row. Errors come from Scan.
	QueryRow(query string, args ...any) *Row
}

// Result tells what a changing statement did.
type Result struct {
	LastInsertID int64 // rowid of the last inserted row
	RowsAffected int64 // rows changed, not counting triggers and foreign key actions
}

// Tx is a Querier that can also change things, inside one Write.
type Tx struct{ session }

// Exec runs a statement that returns no rows. Several statements separated by
// semicolons are allowed.
func (tx *Tx) Exec(query string, args ...any) (Result, error) {
	named, err := tx.prepare(args)
	if err != nil {
		return Result{}, err
	}
	r, err := tx.conn.raw.ExecContext(context.Background(), query, named)
	if err != nil {
		return Result{}, tx.fail(err)
	}
	var out Result
	out.LastInsertID, _ = r.LastInsertId()
	out.RowsAffected, _ = r.RowsAffected()
	return out, nil
}

// session is the use of a connection by one caller's function.
type session struct {
	db     *DB
	conn   *conn
	ctx    context.Context
	ended  bool
	failed error              // set once SQLite has undone the transaction by itself
	open   map[*Rows]struct{} // rows not closed yet
}

func (s *session) prepare(args []any) ([]driver.NamedValue, error) {
	switch {
	case s.ended:
		return nil, errors.New("database handle used after its function returned")
	case s.failed != nil:
		// Without this, later statements would run outside any transaction and
		// become durable one by one.
		return nil, s.failed
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	return bindArgs(args)
}

// fail classifies a statement's error and notes when it took the whole
// transaction with it.
func (s *session) fail(err error) error {
	err = s.db.classify(err)
	if s.conn.raw.AutoCommit() {
		s.failed = err
	}
	return err
}

func (s *session) Query(query string, args ...any) (*Rows, error) {
	named, err := s.prepare(args)
	if err != nil {
		return nil, err
	}
	raw, err := s.conn.raw.QueryContext(context.Background(), query, named)
	if err != nil {
		return nil, s.fail(err)
	}
	r := &Rows{session: s, raw: raw, row: make([]driver.Value, len(raw.Columns()))}
	if s.open == nil {
		s.open = make(map[*Rows]struct{})
	}
	s.open[r] = struct{}{}
	return r, nil
}

func (s *session) QueryRow(query string, args ...any) *Row {
	rows, err := s.Query(query, args...)
	return &Row{rows: rows, err: err}
}

// end closes what the function left open: rows that stay open would hold their
// snapshot, and the WAL could never be emptied.
func (s *session) end() {
	s.ended = true
	for r := range s.open {
		_ = r.Close()
	}
}

// Rows is the result of a query, read with Next and Scan.
type Rows struct {
	session *session
	raw     driver.Rows // nil once closed
	row     []driver.Value
	err     error
}

// Next moves to the next row. False means the end or an error: ask Err.
func (r *Rows) Next() bool {
	if r.raw == nil || r.err != nil {
		return false
	}
	if r.err = r.session.ctx.Err(); r.err != nil {
		_ = r.Close()
		return false
	}
	err := r.raw.Next(r.row)
	if err == nil {
		return true
	}
	if !errors.Is(err, io.EOF) {
		r.err = r.session.fail(err)
	}
	_ = r.Close()
	return false
}

// Scan copies the current row; see scanValue for the types.
func (r *Rows) Scan(dest ...any) error {
	if r.raw == nil {
		return errors.New("scan without a row")
	}
	if len(dest) != len(r.row) {
		return fmt.Errorf("scan %d columns into %d variables", len(r.row), len(dest))
	}
	for i, d := range dest {
		if err := scanValue(d, r.row[i]); err != nil {
			return fmt.Errorf("column %s: %w", r.raw.Columns()[i], err)
		}
	}
	return nil
}

// Err is what ended Next early, or nil.
func (r *Rows) Err() error { return r.err }

// Close ends the query. Reading to the end does it too, and so does the end
// of the Read or Write.
func (r *Rows) Close() error {
	if r.raw == nil {
		return nil
	}
	raw := r.raw
	r.raw = nil
	delete(r.session.open, r)
	return raw.Close()
}

// Row is the first row of a query.
type Row struct {
	rows *Rows
	err  error
}

// Scan copies the row, or returns ErrNoRows.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer func() { _ = r.rows.Close() }()
	if !r.rows.Next() {
		if r.rows.err != nil {
			return r.rows.err
		}
		return ErrNoRows
	}
	return r.rows.Scan(dest...)
}
