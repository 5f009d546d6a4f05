package logstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/mattn/go-sqlite3"
)

const (
	busyTimeoutMS = 5000
	cacheKiB      = 1024
	pageSize      = 8192 // most of what is stored are blobs of 1 to 60 KiB
	walLimitBytes = 16 << 20
	formatVersion = 1
)

// conn is one connection to a day file. One goroutine uses it at a time.
type conn struct {
	raw   *sqlite3.SQLiteConn
	stmts map[string]driver.Stmt
	args  []driver.NamedValue
	row   []driver.Value
}

// mode is what a connection is for.
type mode int

const (
	toRead mode = iota
	toWrite
	toReadFrozen // reading a file that nobody writes, without the files beside it that SQLite would make
)

func openConn(path string, m mode) (*conn, error) {
	v := url.Values{}
	v.Set("_mutex", "no")
	v.Set("_busy_timeout", strconv.Itoa(busyTimeoutMS))
	v.Set("_cache_size", strconv.Itoa(-cacheKiB))
	switch m {
	case toRead:
		v.Set("mode", "rw") // a reader of WAL writes its lock page, but makes no file
		v.Set("_query_only", "1")
	case toReadFrozen:
		v.Set("mode", "ro")
		v.Set("immutable", "1")
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: v.Encode()}
	opened, err := (&sqlite3.SQLiteDriver{}).Open(u.String())
	if err != nil {
		return nil, err
	}
	c := &conn{raw: opened.(*sqlite3.SQLiteConn), stmts: map[string]driver.Stmt{}, row: make([]driver.Value, 8)}
	pragmas := "PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF"
	if m == toWrite {
		// Process death loses nothing with synchronous NORMAL; power failure may
		// lose the last commits of a day together with their positions, so they
		// are read again. The keeper copies logs.
		pragmas = fmt.Sprintf("PRAGMA page_size=%d; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "+
			"PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=%d; ", pageSize, walLimitBytes) + pragmas
	}
	// The question makes SQLite open what is beside the file.
	if err := c.exec(pragmas + "; SELECT 1 FROM sqlite_schema LIMIT 1"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// exec runs statements that are not repeated.
func (c *conn) exec(query string) error {
	_, err := c.raw.ExecContext(context.Background(), query, nil)
	return err
}

func (c *conn) prepare(query string, args []driver.Value) (driver.Stmt, error) {
	s, ok := c.stmts[query]
	if !ok {
		var err error
		if s, err = c.raw.Prepare(query); err != nil {
			return nil, err
		}
		c.stmts[query] = s
	}
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s, nil
}

// run executes a repeated statement. The background context matters: with one
// that can end, the driver starts a goroutine for each statement.
func (c *conn) run(query string, args ...driver.Value) error {
	s, err := c.prepare(query, args)
	if err != nil {
		return err
	}
	_, err = s.(driver.StmtExecContext).ExecContext(context.Background(), c.args)
	return err
}

// each calls fn for every row. The row is only good until fn returns, and fn
// may not run the same query.
func (c *conn) each(query string, fn func(row []driver.Value) error, args ...driver.Value) (err error) {
	s, err := c.prepare(query, args)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), c.args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := fn(row); err != nil {
			return err
		}
	}
}

// blob gives the only column of the only row, nil when there is none.
func (c *conn) blob(query string, args ...driver.Value) ([]byte, error) {
	s, err := c.prepare(query, args)
	if err != nil {
		return nil, err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), c.args)
	if err != nil {
		return nil, err
	}
	err = rows.Next(c.row[:1])
	if cerr := rows.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, ok := c.row[0].([]byte)
	if !ok {
		return nil, errDamaged
	}
	return b, nil
}

// has tells whether the query has a row.
func (c *conn) has(query string, args ...driver.Value) (found bool, err error) {
	err = c.each(query, func([]driver.Value) error { found = true; return nil }, args...)
	return found, err
}

// tx runs fn in one transaction.
func (c *conn) tx(fn func() error) error {
	if err := c.run("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		err = c.run("COMMIT")
	}
	if err != nil && !c.raw.AutoCommit() {
		_ = c.run("ROLLBACK")
	}
	return err
}

func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}
