package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

const (
	// A batch ends when one of these is reached although callers wait, so that
	// the first caller's answer is not put off for ever by later ones.
	batchMaxWrites = 256
	batchMaxAge    = 10 * time.Millisecond
)

// batch is one SQLite transaction shared by the Writes that ran in it.
type batch struct {
	begun  time.Time
	writes int           // Writes whose changes are in it
	done   chan struct{} // closed when committed or failed
	err    error         // valid once done is closed
}

func (b *batch) mayGrow() bool {
	return b.writes < batchMaxWrites && time.Since(b.begun) < batchMaxAge
}

// Write runs fn alone on the database and returns after its changes are
// durable. Writes that wait for each other share one commit; each is undone
// alone when its fn returns an error. fn must not call Write itself, and what
// it reads through tx includes changes not yet committed, so nothing may leave
// fn as a fact before Write has returned nil.
//
// A ctx that ends while Write waits for its turn means fn is not run. Once fn
// runs, Write finishes and tells what became of it.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	if err := db.turn.take(ctx); err != nil {
		if errors.Is(err, errClosed) {
			return db.closedError()
		}
		return fmt.Errorf("write %s: %w", filepath.Base(db.path), err)
	}
	joined, err := db.hold(ctx, fn)
	if joined == nil {
		return err
	}
	<-joined.done
	return joined.err
}

// hold uses the turn and hands it on, whatever fn does, runtime.Goexit
// included. It returns the batch fn's changes are in, or nil and why not.
func (db *DB) hold(ctx context.Context, fn func(tx *Tx) error) (joined *batch, err error) {
	defer db.handOver()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("write %s: %w", filepath.Base(db.path), err)
	}
	if db.batch == nil {
		if err := db.writer.step(db.writer.begin); err != nil {
			return nil, db.classify(fmt.Errorf("begin write: %w", err))
		}
		db.batch = &batch{begun: time.Now(), done: make(chan struct{})}
	}
	b := db.batch
	if err := db.attempt(fn); err != nil {
		return nil, err
	}
	return b, nil
}

// attempt runs fn under a savepoint. An error means fn's changes are gone.
func (db *DB) attempt(fn func(tx *Tx) error) (err error) {
	w := db.writer
	if err := w.step(w.savepoint); err != nil {
		return db.settle(nil, fmt.Errorf("begin write: %w", err))
	}
	tx := &Tx{session: session{db: db, conn: w, ctx: context.Background()}}
	err = errors.New("the goroutine ended inside a write")
	defer func() {
		tx.end()
		err = db.settle(tx, err)
	}()
	err = db.guard("write", func() error { return fn(tx) })
	return err
}

// settle keeps or undoes what fn did and leaves the transaction ready for the
// next fn, or ended.
func (db *DB) settle(tx *Tx, err error) error {
	w := db.writer
	if w.raw.AutoCommit() {
		// SQLite has undone the whole transaction by itself (disk full, I/O
		// error). Earlier Writes of the batch are gone too and must hear it,
		// and fn's own verdict no longer counts.
		switch {
		case tx != nil && tx.failed != nil:
			err = tx.failed
		case err == nil:
			err = errors.New("the transaction was ended inside a write")
		}
		return db.failBatch(err)
	}
	if err == nil {
		if err := w.step(w.release); err != nil {
			return db.failBatch(fmt.Errorf("end write: %w", err))
		}
		db.batch.writes++
		return nil
	}
	if undo := w.step(w.rollbackTo); undo != nil {
		return db.failBatch(fmt.Errorf("undo write: %w", undo))
	}
	if undo := w.step(w.release); undo != nil {
		return db.failBatch(fmt.Errorf("undo write: %w", undo))
	}
	return err
}

// handOver gives the turn to the next caller. The open batch goes along if
// somebody waits to use it; else it is committed here.
func (db *DB) handOver() {
	if b := db.batch; b != nil {
		if b.mayGrow() && db.turn.passToWaiting() {
			return
		}
		db.endBatch()
	}
	db.turn.pass()
}

func (db *DB) endBatch() {
	b, w := db.batch, db.writer
	if b.writes == 0 {
		if err := w.step(w.rollback); err != nil {
			_ = db.failBatch(fmt.Errorf("end write: %w", err))
			return
		}
	} else if err := w.step(w.commit); err != nil {
		_ = db.failBatch(fmt.Errorf("commit: %w", err))
		return
	}
	db.batch = nil
	close(b.done)
}

// failBatch undoes the whole transaction and tells everybody in it.
func (db *DB) failBatch(err error) error {
	w := db.writer
	if !w.raw.AutoCommit() {
		if undo := w.step(w.rollback); undo != nil {
			err = errors.Join(err, fmt.Errorf("roll back: %w", undo))
		}
	}
	b := db.batch
	b.err = db.classify(err)
	db.batch = nil
	close(b.done)
	return b.err
}
