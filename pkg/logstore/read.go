package logstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io/fs"
	"os"
	"slices"
)

// errGone stops a query in a day that is being removed.
var errGone = errors.New("day is being removed")

// with gives fn a connection that cannot write rows.
func (d *day) with(fn func(c *conn) error) error {
	d.reading.RLock()
	defer d.reading.RUnlock()
	if d.gone.Load() {
		return errGone
	}
	d.mu.Lock()
	var c *conn
	if n := len(d.idle); n > 0 {
		c, d.idle = d.idle[n-1], d.idle[:n-1]
	}
	d.mu.Unlock()
	if c == nil {
		var err error
		if c, err = openConn(d.path, toRead); err != nil {
			if isFull(err) {
				return d.frozen(fn, err)
			}
			return err
		}
	}
	err := fn(c)
	d.mu.Lock()
	keep := err == nil && d.warm && len(d.idle) < 2
	if keep {
		d.idle = append(d.idle, c)
	}
	d.mu.Unlock()
	if !keep {
		err = errors.Join(err, c.close())
	}
	return err
}

// frozen gives fn a connection that needs no space: the disk is full, and the
// files that SQLite makes beside one that it reads cannot be made. It is no good
// when somebody writes meanwhile; then what fn found does not count.
func (d *day) frozen(fn func(c *conn) error, full error) error {
	opened := d.opened.Load()
	fi, err := os.Stat(d.path + "-wal")
	if opened%2 != 0 || err == nil && fi.Size() > 0 {
		return full
	}
	c, err := openConn(d.path, toReadFrozen)
	if err != nil {
		return err
	}
	err = errors.Join(fn(c), c.close())
	if d.opened.Load() != opened {
		return full
	}
	return err
}

// read is with, and fn sees one state of the day.
func (d *day) read(fn func(c *conn) error) error {
	return d.with(func(c *conn) error {
		if err := c.run("BEGIN"); err != nil {
			return err
		}
		err := fn(c)
		if !c.raw.AutoCommit() { // SQLite ends it itself after some errors
			err = errors.Join(err, c.run("ROLLBACK"))
		}
		return err
	})
}

// cool closes the connections that wait for the next query.
func (d *day) cool() {
	d.mu.Lock()
	d.warm = false
	d.mu.Unlock()
	d.forget()
}

// forget closes the connections that wait, and with them goes what they remember
// of the file.
func (d *day) forget() {
	d.mu.Lock()
	idle := d.idle
	d.idle = nil
	d.mu.Unlock()
	for _, c := range idle {
		_ = c.close() // read only: nothing can be lost
	}
}

// glance reads a little of a day anew. Connections that are kept would answer from
// memory long after the file was overwritten, and status call it sound.
func (s *Store) glance(ctx context.Context, d *day) error {
	d.forget()
	_, err := s.judge(ctx, d, d.read(func(c *conn) error {
		if ok, err := c.has("SELECT 1 FROM next"); err != nil || !ok {
			return errors.Join(err, errDamaged)
		}
		if _, err := c.has("SELECT max(no) FROM mini"); err != nil {
			return err
		}
		return c.each(segmentQuery, func(r []driver.Value) error {
			_, err := readSegment(r)
			return err
		})
	}))
	return err
}

// readDay is read with the store's rules: a damaged file is set aside and is
// then as if it were empty, so fn must not have told anybody its results yet.
func (s *Store) readDay(ctx context.Context, d *day, fn func(c *conn) error) (ok bool, err error) {
	s.touch(d)
	return s.judge(ctx, d, d.read(fn))
}

// judge says what an error of a reader means.
func (s *Store) judge(ctx context.Context, d *day, err error) (ok bool, _ error) {
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ended(ctx)
	case errors.Is(err, errGone):
		return false, nil
	case isDamage(err):
		return false, s.setAside(ctx, d, err)
	}
	if _, missing := os.Stat(d.path); errors.Is(missing, fs.ErrNotExist) {
		return false, s.setAside(ctx, d, err)
	}
	return false, classify(d.path, err)
}

// keptReaders is how many days keep connections for the next query.
const keptReaders = 8

// touch makes d the last day whose connections are closed.
func (s *Store) touch(d *day) {
	s.mu.Lock()
	if i := slices.Index(s.warm, d); i >= 0 {
		s.warm = slices.Delete(s.warm, i, i+1)
	}
	s.warm = append(s.warm, d)
	var old *day
	if len(s.warm) > keptReaders {
		old, s.warm = s.warm[0], slices.Delete(s.warm, 0, 1)
	}
	d.mu.Lock()
	d.warm = true
	d.mu.Unlock()
	s.mu.Unlock()
	if old != nil {
		old.cool()
	}
}
