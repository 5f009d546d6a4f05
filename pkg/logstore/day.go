package logstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"vpnd/pkg/fault"
)

const schema = `
CREATE TABLE mini (no INTEGER PRIMARY KEY, rows INTEGER, bytes INTEGER, tmin INTEGER, tmax INTEGER, levels INTEGER, data BLOB);
CREATE TABLE segment (no INTEGER PRIMARY KEY, rows INTEGER, tmin INTEGER, tmax INTEGER, levels INTEGER, blocks BLOB);
CREATE TABLE rollup (segment INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE col (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE leaf (segment INTEGER, first BLOB, data BLOB, PRIMARY KEY (segment, first)) WITHOUT ROWID;
CREATE TABLE key (col INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE source (id INTEGER PRIMARY KEY, dev INTEGER, ino INTEGER, path TEXT, pos INTEGER);
CREATE TABLE next (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER, no INTEGER);
INSERT INTO next VALUES (1, 0, 1);
PRAGMA user_version = 1;`

// miniMeta is what is known of rows that are in no segment yet.
type miniMeta struct {
	no          int64
	rows, bytes int
	tmin, tmax  int64
	levels      int
}

// day is one day's file.
type day struct {
	date Day
	path string

	// For whoever holds the store's turn.
	w         *conn
	head      []miniMeta // in order of arrival
	headRows  int
	headBytes int
	nextSeq   int64
	nextNo    int64
	keys      map[string]int
	queued    bool // waits for the sealer

	gone    atomic.Bool  // no new readers; those inside stop soon
	reading sync.RWMutex // held for reading while a connection is in use
	mu      sync.Mutex
	idle    []*conn
	used    int64 // when last read, in reads of the store
}

// openWriter opens the day for writing, and makes its file if there is none.
func (d *day) openWriter() error {
	if d.w != nil {
		return nil
	}
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	c, err := openConn(d.path, true)
	if err != nil {
		return err
	}
	if err := d.prepare(c); err != nil {
		return errors.Join(err, c.close())
	}
	d.w = c
	return nil
}

func (d *day) prepare(c *conn) error {
	version := int64(0)
	if err := c.each("PRAGMA user_version", func(r []driver.Value) error { version = integer(r[0]); return nil }); err != nil {
		return err
	}
	switch {
	case version == 0:
		if err := c.tx(func() error { return c.exec(schema) }); err != nil {
			return err
		}
	case version > formatVersion:
		return fault.New(fault.Unimplemented, "%s was written by a newer vpnd", d.path).WithHint("install that version again")
	}
	return d.loadHead(c)
}

func (d *day) loadHead(c *conn) error {
	var head []miniMeta
	rows, bytes := 0, 0
	err := c.each("SELECT no, rows, bytes, tmin, tmax, levels FROM mini ORDER BY no", func(r []driver.Value) error {
		m := miniMeta{integer(r[0]), int(integer(r[1])), int(integer(r[2])), integer(r[3]), integer(r[4]), int(integer(r[5]))}
		head = append(head, m)
		rows += m.rows
		bytes += m.bytes
		return nil
	})
	if err != nil {
		return err
	}
	keys, err := readKeys(c)
	if err != nil {
		return err
	}
	found := false
	err = c.each("SELECT seq, no FROM next", func(r []driver.Value) error {
		d.nextSeq, d.nextNo, found = integer(r[0]), integer(r[1]), true
		return nil
	})
	if err == nil && !found {
		err = errDamaged
	}
	d.head, d.headRows, d.headBytes, d.keys = head, rows, bytes, keys
	return err
}

func (d *day) closeWriter() error {
	if d.w == nil {
		return nil
	}
	c := d.w
	d.w = nil
	return c.close()
}

// errGone stops a query in a day that is being removed.
var errGone = errors.New("day is being removed")

// read gives fn a connection that sees one state of the day.
func (d *day) read(fn func(c *conn) error) (err error) {
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
		if c, err = openConn(d.path, false); err != nil {
			return err
		}
	}
	if err = c.run("BEGIN"); err == nil {
		err = fn(c)
		err = errors.Join(err, c.run("ROLLBACK"))
	}
	d.mu.Lock()
	keep := err == nil && len(d.idle) < 2
	if keep {
		d.idle = append(d.idle, c)
	}
	d.mu.Unlock()
	if !keep {
		err = errors.Join(err, c.close())
	}
	return err
}

func (d *day) closeIdle() {
	d.mu.Lock()
	idle := d.idle
	d.idle = nil
	d.mu.Unlock()
	for _, c := range idle {
		_ = c.close() // read only: nothing can be lost
	}
}

// detach ends all use of the file, so that it can be renamed or removed: a
// connection that closed later would delete the log of a new file of that name.
func (d *day) detach() {
	d.gone.Store(true)
	d.reading.Lock()
	defer d.reading.Unlock()
	d.closeIdle()
	_ = d.closeWriter()
}

func (d *day) remove() error {
	d.detach()
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(d.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// size is what the day takes on disk.
func (d *day) size() int64 {
	n := int64(0)
	for _, suffix := range []string{"", "-wal"} {
		if fi, err := os.Stat(d.path + suffix); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// dayList gives the days that may hold records of [since, until), in rising
// order. Bounds are microseconds.
func (s *Store) dayList(since, until int64) []*day {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*day
	for _, d := range s.days {
		if d.date.start()+microsADay > since && d.date.start() < until {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *day) int { return int(a.date) - int(b.date) })
	return out
}

// readDay is read with the store's rules: a damaged file is set aside and is
// then as if it were empty, so fn must not have told anybody its results yet.
func (s *Store) readDay(ctx context.Context, d *day, fn func(c *conn) error) (ok bool, err error) {
	s.touch(d)
	err = d.read(fn)
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

func (s *Store) touch(d *day) {
	s.mu.Lock()
	s.reads++
	d.used = s.reads
	var old *day
	n := 0
	for _, o := range s.days {
		o.mu.Lock()
		if len(o.idle) > 0 {
			n++
			if old == nil || o.used < old.used {
				old = o
			}
		}
		o.mu.Unlock()
	}
	s.mu.Unlock()
	if n > keptReaders && old != d {
		old.closeIdle()
	}
}
