//go:build linux

package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sqlFloor is the corpus in one SQLite table with one index, without search.
// The driver comes with pkg/store, which is where it belongs.
type sqlFloor struct {
	db   *sql.DB
	took time.Duration // of the inserts
	cpu  time.Duration
	size int64
}

const (
	sqlSchema = `CREATE TABLE log (time INTEGER PRIMARY KEY, level INTEGER, service TEXT, event TEXT, message TEXT,
	user TEXT, request_id TEXT, peer TEXT, dur_ms INTEGER, try INTEGER, ok INTEGER);
CREATE INDEX by_service ON log (service, level, time)`
	sqlColumns = 11
	sqlRows    = 50 // a statement
)

// sqlite fills the table once.
func (l *logBench) sqlite(ctx context.Context, dir string) (_ *sqlFloor, err error) {
	if l.sql != nil {
		return l.sql, nil
	}
	path := filepath.Join(dir, "floor-logs.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_synchronous=NORMAL&_cache_size=-65536")
	if err != nil {
		return nil, err
	}
	f := &sqlFloor{db: db}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, sqlSchema); err != nil {
		return nil, err
	}
	tuple := "(" + strings.Repeat("?,", sqlColumns-1) + "?)"
	insert, err := db.PrepareContext(ctx, "INSERT INTO log VALUES "+strings.Repeat(tuple+",", sqlRows-1)+tuple)
	if err != nil {
		return nil, err
	}
	defer insert.Close()
	for seed, day := range l.days {
		g := day.traffic(seed)
		for left := day.rows; left > 0; { // whole statements: see prepareLogs
			n := min(left, linesAWrite)
			rows := make([][]any, n/sqlRows)
			for i := range rows {
				rows[i] = sqlValues(g)
			}
			left -= n
			if err := f.insert(ctx, insert, rows); err != nil {
				return nil, err
			}
		}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	f.size = fi.Size()
	l.sql = f
	return f, nil
}

func sqlValues(g *logTraffic) []any {
	out := make([]any, 0, sqlRows*sqlColumns)
	var e logEntry
	for range sqlRows {
		g.next(&e)
		out = append(out, e.at.UnixMicro(), int(e.level), e.service, e.event, e.message, e.user, e.request, e.by, e.dur, e.try, e.ok)
	}
	return out
}

// insert is one transaction, timed.
func (f *sqlFloor) insert(ctx context.Context, insert *sql.Stmt, rows [][]any) error {
	began, cpu := time.Now(), ownTime()
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	st := tx.StmtContext(ctx, insert)
	for _, values := range rows {
		if _, err := st.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	f.took += time.Since(began)
	f.cpu += ownTime() - cpu
	return nil
}

// ask puts a question and reads the whole answer: the sum of the column n, or
// the number of rows when there is none.
func (f *sqlFloor) ask(ctx context.Context, query string) (int64, error) {
	rows, err := f.db.QueryContext(ctx, query)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	values, into := make([]any, len(names)), make([]any, len(names))
	at := -1
	for i, name := range names {
		into[i] = &values[i]
		if name == "n" {
			at = i
		}
	}
	sum := int64(0)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return 0, err
		}
		n := int64(1)
		if at >= 0 {
			n, _ = values[at].(int64)
		}
		sum += n
	}
	return sum, rows.Err()
}

func (f *sqlFloor) close() error {
	if f == nil {
		return nil
	}
	return f.db.Close()
}

// ownTime is the processor time of this process.
func ownTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const (
	scanFirst = 64 << 10
	scanMost  = 1 << 20
)

// scanBack looks through files from the end of the last one to the beginning
// of the first for lines with a word, until it has want of them.
func scanBack(paths []string, word string, want int) (found int, err error) {
	buf := make([]byte, scanMost)
	for i := len(paths) - 1; i >= 0 && found < want; i-- {
		n, err := scanFile(paths[i], []byte(word), want-found, buf)
		if err != nil {
			return 0, err
		}
		found += n
	}
	return min(found, want), nil
}

func scanFile(path string, word []byte, want int, buf []byte) (found int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := fi.Size() // always where a line ends
	for size := int64(scanFirst); end > 0 && found < want; size = min(2*size, scanMost) {
		from := max(0, end-size)
		part := buf[:end-from]
		if _, err := f.ReadAt(part, from); err != nil {
			return 0, err
		}
		if from > 0 {
			cut := bytes.IndexByte(part, '\n') + 1 // lines are shorter than the least part
			part, from = part[cut:], from+int64(cut)
		}
		end = from
		for {
			at := bytes.Index(part, word)
			if at < 0 {
				break
			}
			found++
			part = part[at:]
			part = part[bytes.IndexByte(part, '\n')+1:]
		}
	}
	return found, nil
}
