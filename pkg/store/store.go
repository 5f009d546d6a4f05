// Package store is one service's SQLite database: opened exclusively, migrated,
// written by one caller at a time with group commit, read from snapshots.
//
// It owns the database file, its lock, the connections and the translation of
// SQLite's failures into faults. It is the only package that knows the SQLite
// driver. It leaves schemas and queries to the services. A DB may be used
// concurrently; a Tx, Querier or Rows belongs to the function it was given to,
// ends with it, and may not be used by two goroutines at once.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"vpnd/pkg/fault"
)

// defaultReaders is enough for a service that serves two cores: a read takes
// microseconds, and each open connection costs memory in every process.
const defaultReaders = 2

// Options says which database to open and how.
type Options struct {
	Path       string       // database file; its folder must exist
	Migrations []Migration  // the whole history of the schema, oldest first
	Readers    int          // concurrent Reads; 0 means 2
	Log        *slog.Logger // nil discards
}

// DB is an open database. Make it with Open, end it with Close.
type DB struct {
	path string
	log  *slog.Logger
	lock *os.File

	turn   turn   // who may use writer and batch
	writer *conn  // only the holder of the turn
	batch  *batch // the open transaction, nil between transactions; only the holder of the turn

	closed chan struct{} // closed by Close
	slots  chan struct{} // one token per running Read
	mu     sync.Mutex    // guards idle
	idle   []*conn       // open readers nobody uses, last used last
}

// Open locks, creates (mode 0600) and migrates the database. It waits up to
// five seconds for a previous owner that is still ending, then fails with
// fault.Unavailable, reason in_use. A database written by a newer program is
// refused with reason newer_database.
func Open(ctx context.Context, o Options) (*DB, error) {
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", o.Path, err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	readers := o.Readers
	if readers <= 0 {
		readers = defaultReaders
	}
	lock, err := lockFile(ctx, path)
	if err != nil {
		return nil, err
	}
	db := &DB{path: path, log: log, lock: lock, closed: make(chan struct{}), slots: make(chan struct{}, readers)}
	if err := db.open(ctx, o.Migrations); err != nil {
		if db.writer != nil {
			_ = db.writer.close()
		}
		_ = lock.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, migrations []Migration) error {
	if err := createPrivate(db.path); err != nil {
		return db.classify(fmt.Errorf("create database %s: %w", db.path, err))
	}
	c, err := openConn(db.path, writerRole)
	if err != nil {
		return db.classify(fmt.Errorf("open database %s: %w", db.path, err))
	}
	db.writer = c
	return db.migrate(ctx, migrations)
}

// Close waits for the Writes already queued and the Reads already running,
// refuses later ones and closes the file. Calling it again does nothing.
func (db *DB) Close() error {
	if !db.turn.close() {
		return nil
	}
	if db.batch != nil { // the last Write left it to us, next in the queue
		db.endBatch()
	}
	close(db.closed)
	for range cap(db.slots) {
		db.slots <- struct{}{}
	}
	var errs []error
	for _, c := range db.idle {
		errs = append(errs, c.close())
	}
	errs = append(errs, db.writer.close(), db.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return db.classify(fmt.Errorf("close database %s: %w", db.path, err))
	}
	return nil
}

// Read runs fn on one consistent snapshot, which includes every Write that
// returned before. A canceled ctx ends the wait for a connection and the
// iteration of rows.
func (db *DB) Read(ctx context.Context, fn func(q Querier) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(db.path), err)
	}
	select {
	case db.slots <- struct{}{}:
	case <-db.closed:
		return db.closedError()
	case <-ctx.Done():
		return fmt.Errorf("read %s: %w", filepath.Base(db.path), ctx.Err())
	}
	defer func() { <-db.slots }()
	select {
	case <-db.closed: // Close may have closed the idle readers already
		return db.closedError()
	default:
	}
	c, err := db.takeReader()
	if err != nil {
		return db.classify(fmt.Errorf("open database %s: %w", db.path, err))
	}
	defer db.returnReader(c)
	if err := c.step(c.begin); err != nil {
		return db.classify(fmt.Errorf("begin read: %w", err))
	}
	q := &session{db: db, conn: c, ctx: ctx}
	defer func() {
		q.end()
		// A failed end leaves a snapshot open for ever: the WAL would only grow.
		if err := c.step(c.rollback); err != nil {
			c.broken = true
		}
	}()
	return db.guard("read", func() error { return fn(q) })
}

func (db *DB) takeReader() (*conn, error) {
	db.mu.Lock()
	if n := len(db.idle); n > 0 {
		c := db.idle[n-1]
		db.idle = db.idle[:n-1]
		db.mu.Unlock()
		return c, nil
	}
	db.mu.Unlock()
	return openConn(db.path, readerRole)
}

func (db *DB) returnReader(c *conn) {
	if c.broken {
		_ = c.close()
		return
	}
	db.mu.Lock()
	db.idle = append(db.idle, c)
	db.mu.Unlock()
}

// guard turns a panic of a caller's function into an error for that caller.
func (db *DB) guard(op string, fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			db.log.Error("panic inside a database "+op, "path", db.path, "panic", r, "stack", string(debug.Stack()))
			err = fault.Wrap(fmt.Errorf("panic: %v", r), fault.Internal, "%s of %s", op, filepath.Base(db.path))
		}
	}()
	return fn()
}

func (db *DB) closedError() error {
	return fault.New(fault.Unavailable, "database %s is closed", db.path).WithReason("closed")
}
