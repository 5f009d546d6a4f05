package logstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

// Options says where a store is and how much it keeps.
type Options struct {
	Dir      string        // its folder, made if it is missing; nothing else may be in it
	MaxAge   time.Duration // days that ended longer ago are removed; 0: none
	MaxBytes int64         // oldest days are removed until all take no more; 0: any size
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
	Slow     time.Duration    // a query that takes longer is counted and logged; 0: one second
}

// Store is the folder with its days.
type Store struct {
	opt   Options
	state *store.DB
	cache *cache

	turn    chan struct{} // one token: who has it may write
	writers []*day        // days open for writing, least recently used first
	files   map[FileID]*file
	pending bool // state.db holds rows that some day does not have yet

	mu    sync.Mutex
	days  map[Day]*day
	reads int64

	work    chan *day
	sealed  chan struct{} // replaced whenever the sealer has done something
	sealErr error         // of the last attempt, guarded by mu
	stop    context.CancelFunc
	done    sync.WaitGroup
	stats   counters
	closed  bool // under turn
	flushed time.Time
}

type counters struct {
	rows, slow, queries atomic.Int64
	setAside            atomic.Int64
}

// file is a source file and how far it is in.
type file struct {
	id    int64
	pos   int64
	dirty bool // pos is not in state.db yet; the days know it
}

var migrations = []store.Migration{{Name: "positions", SQL: `
CREATE TABLE file (id INTEGER PRIMARY KEY, dev INTEGER NOT NULL, ino INTEGER NOT NULL, path TEXT NOT NULL, pos INTEGER NOT NULL, UNIQUE (dev, ino, path));
CREATE TABLE pending (id INTEGER PRIMARY KEY, day INTEGER NOT NULL, data BLOB NOT NULL, sources BLOB NOT NULL);`}}

// Open opens the store, finishes what a killed process had begun, and sets
// damaged days aside.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Slow == 0 {
		o.Slow = time.Second
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, classify(o.Dir, err)
	}
	s := &Store{
		opt: o, turn: make(chan struct{}, 1), files: map[FileID]*file{}, days: map[Day]*day{},
		cache: newCache(headCache), work: make(chan *day, 64), sealed: make(chan struct{}),
	}
	fresh, err := s.openState(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.load(ctx, fresh); err != nil {
		return nil, errors.Join(err, s.state.Close())
	}
	run, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.turn <- struct{}{}
	s.done.Go(func() { s.seal(run) })
	return s, nil
}

func (s *Store) statePath() string { return filepath.Join(s.opt.Dir, "state.db") }

// openState tells whether state.db is new: then the days' own positions count.
func (s *Store) openState(ctx context.Context) (fresh bool, err error) {
	path := s.statePath()
	_, missing := os.Stat(path)
	s.state, err = store.Open(ctx, store.Options{Path: path, Migrations: migrations})
	if err == nil {
		err = s.loadFiles(ctx)
		if err == nil {
			return errors.Is(missing, fs.ErrNotExist), nil
		}
		err = errors.Join(err, s.state.Close())
	}
	if fault.ReasonOf(err) != "corrupt" {
		return false, err
	}
	s.opt.Log.Error("position file is damaged; positions are taken from the days", "file", path, "error", err)
	if err := renameAside(path); err != nil {
		return false, classify(path, err)
	}
	clear(s.files)
	s.state, err = store.Open(ctx, store.Options{Path: path, Migrations: migrations})
	return true, err
}

func (s *Store) loadFiles(ctx context.Context) error {
	return s.state.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query("SELECT id, dev, ino, path, pos FROM file")
		if err != nil {
			return err
		}
		for rows.Next() {
			var id FileID
			var f file
			var dev, ino int64
			if err := rows.Scan(&f.id, &dev, &ino, &id.Path, &f.pos); err != nil {
				return err
			}
			id.Dev, id.Ino = uint64(dev), uint64(ino)
			s.files[id] = &f
		}
		if err := rows.Err(); err != nil {
			return err
		}
		n := 0
		if err := q.QueryRow("SELECT count(*) FROM pending").Scan(&n); err != nil {
			return err
		}
		s.pending = n > 0
		return nil
	})
}

// load finds the days and what each knows of the positions.
func (s *Store) load(ctx context.Context, fresh bool) error {
	entries, err := os.ReadDir(s.opt.Dir)
	if err != nil {
		return classify(s.opt.Dir, err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".db")
		t, err := time.Parse(time.DateOnly, name)
		if !ok || err != nil || !e.Type().IsRegular() {
			continue
		}
		date := DayOf(t)
		s.days[date] = &day{date: date, path: s.dayPath(date)}
	}
	for _, d := range s.dayList(minMicro, maxMicro) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.openWriter()
		if err == nil {
			err = s.recover(d, fresh)
		}
		switch {
		case err != nil && isDamage(err):
			if err := s.setAsideLocked(d, err); err != nil {
				return err
			}
			continue
		case err != nil:
			_ = d.closeWriter()
			return classify(d.path, err)
		}
		if err := d.closeWriter(); err != nil {
			return classify(d.path, err)
		}
	}
	if s.pending {
		return s.replay(ctx)
	}
	return nil
}

func (s *Store) dayPath(d Day) string { return filepath.Join(s.opt.Dir, d.String()+".db") }

// Close writes what is left of the positions and ends the sealer. It waits for
// queries in progress.
func (s *Store) Close() error {
	<-s.turn
	if s.closed {
		s.turn <- struct{}{}
		return nil
	}
	s.closed = true
	err := s.flush(context.Background())
	s.turn <- struct{}{}
	s.stop()
	s.done.Wait()
	s.mu.Lock()
	days := s.days
	s.days = map[Day]*day{}
	s.mu.Unlock()
	for _, d := range days {
		d.detach()
	}
	return errors.Join(err, s.state.Close())
}

// take waits for the turn to write.
func (s *Store) take(ctx context.Context) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed {
		s.pass()
		return fault.New(fault.Unavailable, "the log store is closed")
	}
	return nil
}

func (s *Store) pass() { s.turn <- struct{}{} }

// setAside renames a damaged day so that it is out of the way but not lost.
func (s *Store) setAside(ctx context.Context, d *day, cause error) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	return s.setAsideLocked(d, cause)
}

func (s *Store) setAsideLocked(d *day, cause error) error {
	s.mu.Lock()
	mine := s.days[d.date] == d
	if mine {
		delete(s.days, d.date)
	}
	s.mu.Unlock()
	if !mine {
		return nil // somebody else was quicker
	}
	d.detach()
	s.forgetWriter(d)
	s.stats.setAside.Add(1)
	s.opt.Log.Error("day file is damaged and set aside; the other days go on", "file", d.path, "error", cause)
	if err := renameAside(d.path); err != nil {
		return classify(d.path, err)
	}
	return nil
}

func (s *Store) forgetWriter(d *day) {
	for i, o := range s.writers {
		if o == d {
			s.writers = append(s.writers[:i:i], s.writers[i+1:]...)
			return
		}
	}
}

// renameAside gives a file and its SQLite logs a name with .damaged, and a
// number when there is one already.
func renameAside(path string) error {
	to := path + ".damaged"
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d.damaged", path, i)
	}
	for _, suffix := range []string{"-shm", "-wal", ""} {
		if err := os.Rename(path+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
