package logstore

import (
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
CREATE TABLE segment (no INTEGER PRIMARY KEY, lexicon INTEGER, rows INTEGER, tmin INTEGER, tmax INTEGER, levels INTEGER, bytes INTEGER, chunks BLOB);
CREATE TABLE rollup (chunk INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE col (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE block (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE zone (segment INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE leaf (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE lexeme (lexicon INTEGER, first BLOB, leaf INTEGER, PRIMARY KEY (lexicon, first)) WITHOUT ROWID;
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
	queued    bool  // waits for the sealer
	merging   bool  // the sealer joins its segments
	joined    bool  // there is nothing to join but what comes in
	loaded    bool  // head is known
	noted     int64 // nextSeq that state.db knows
	raised    bool  // it knows a position that state.db does not
	quiet     int   // how often the keeper found nothing to do
	toCopy    int   // about how much appends and joins wrote since its log was last copied into it
	litter    parts // to be removed

	opened   atomic.Int64 // counts when it is opened and closed for writing: odd while it is open
	seen     atomic.Pointer[seenStatus]
	gone     atomic.Bool   // no new readers; those inside stop soon
	detached chan struct{} // closed when it is gone and nobody uses its file any more
	reading  sync.RWMutex  // held for reading while a connection is in use
	mu       sync.Mutex
	idle     []*conn
	warm     bool // idle connections are kept
}

func newDay(date Day, path string) *day {
	return &day{date: date, path: path, detached: make(chan struct{})}
}

// openWriter opens the day for writing, and makes its file if there is none.
func (d *day) openWriter() error {
	if d.w != nil {
		return nil
	}
	// Not opened and closed when it is there: that would take away the locks that
	// readers of this process have on it.
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	c, err := openConn(d.path, toWrite)
	if err != nil {
		return err
	}
	if err := d.prepare(c); err != nil {
		return errors.Join(err, c.close())
	}
	d.w = c
	d.opened.Add(1)
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
	d.loaded = err == nil
	return err
}

// takeWriter takes the connection for writing away. What is not needed for rows
// that wait is read again when it is opened next.
func (d *day) takeWriter() *conn {
	c := d.w
	if c == nil {
		return nil
	}
	d.w = nil
	d.opened.Add(1)
	if len(d.head) == 0 {
		d.head, d.keys = nil, nil
	}
	return c
}

func (d *day) closeWriter() error {
	c := d.takeWriter()
	if c == nil {
		return nil
	}
	return c.close()
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

// detach ends all use of the file, so that it can be renamed or removed: a
// connection that closed later would delete the log of a new file of that name.
// The caller has the turn, or took the writer away while it had.
func (d *day) detach() {
	d.gone.Store(true)
	d.reading.Lock()
	defer d.reading.Unlock()
	d.cool()
	if d.w != nil {
		_ = d.closeWriter()
	}
	select {
	case <-d.detached:
	default:
		close(d.detached)
	}
}
