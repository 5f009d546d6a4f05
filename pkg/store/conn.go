package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/mattn/go-sqlite3"
)

// role is what a connection is for.
type role int

const (
	readerRole role = iota
	writerRole
)

const (
	writerCacheKiB = 1024
	readerCacheKiB = 512
	statements     = 64   // prepared statements kept per connection
	busyTimeoutMS  = 5000 // for an operator's sqlite3 shell that holds the file
	walLimitBytes  = 8 << 20
)

// conn is one SQLite connection with the statements that frame transactions.
// Only one goroutine uses it at a time, so it is opened without SQLite's mutex.
type conn struct {
	raw    *sqlite3.SQLiteConn
	broken bool // not fit for another use

	begin, commit, rollback        driver.Stmt
	savepoint, rollbackTo, release driver.Stmt // writer only
}

func openConn(path string, r role) (*conn, error) {
	v := url.Values{}
	v.Set("_mutex", "no")
	v.Set("_busy_timeout", strconv.Itoa(busyTimeoutMS))
	v.Set("_journal_mode", "WAL")
	v.Set("_synchronous", "FULL")
	v.Set("_foreign_keys", "1")
	v.Set("_stmt_cache_size", strconv.Itoa(statements))
	cache, begin := readerCacheKiB, "BEGIN DEFERRED"
	if r == writerRole {
		cache, begin = writerCacheKiB, "BEGIN IMMEDIATE"
	} else {
		v.Set("_query_only", "1")
	}
	v.Set("_cache_size", strconv.Itoa(-cache)) // negative: KiB
	u := url.URL{Scheme: "file", Path: path, RawQuery: v.Encode()}
	opened, err := (&sqlite3.SQLiteDriver{}).Open(u.String())
	if err != nil {
		return nil, err
	}
	c := &conn{raw: opened.(*sqlite3.SQLiteConn)}
	if err := c.prepare(r, begin); err != nil {
		return nil, errors.Join(err, c.raw.Close())
	}
	return c, nil
}

func (c *conn) prepare(r role, begin string) error {
	// Temporary files in memory: a service may have no folder it can write to
	// besides its own, and what spills is small.
	pragmas := "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF"
	frame := []struct {
		to  *driver.Stmt
		sql string
	}{{&c.begin, begin}, {&c.commit, "COMMIT"}, {&c.rollback, "ROLLBACK"}}
	if r == writerRole {
		pragmas += fmt.Sprintf("; PRAGMA journal_size_limit = %d", walLimitBytes)
		frame = append(frame, []struct {
			to  *driver.Stmt
			sql string
		}{{&c.savepoint, "SAVEPOINT w"}, {&c.rollbackTo, "ROLLBACK TO w"}, {&c.release, "RELEASE w"}}...)
	}
	if _, err := c.raw.ExecContext(context.Background(), pragmas, nil); err != nil {
		return err
	}
	for _, f := range frame {
		s, err := c.raw.Prepare(f.sql)
		if err != nil {
			return err
		}
		*f.to = s
	}
	return nil
}

// step runs one of the prepared statements. The background context matters:
// with one that can end, the driver starts a goroutine per statement.
func (c *conn) step(s driver.Stmt) error {
	_, err := s.(driver.StmtExecContext).ExecContext(context.Background(), nil)
	return err
}

// close finalizes the statements and closes the connection. The last
// connection to close moves the WAL into the database file.
func (c *conn) close() error {
	var errs []error
	for _, s := range []driver.Stmt{c.begin, c.commit, c.rollback, c.savepoint, c.rollbackTo, c.release} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, c.raw.Close())...)
}
