package logstore

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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
	opt       Options
	state     *store.DB
	cache     *cache
	chunkRows int // of a full chunk
	layLeaves int // written at once

	quietTicks int // until a day counts as quiet; guarded by turn

	turn    chan struct{} // one token: who has it may write
	writers []*day        // days open for writing, least recently used first
	files   map[FileID]*file
	floors  map[Day]floor
	pending bool // state.db may hold rows that some day does not have yet

	// Of appends that failed halfway: what is pending, and rows that came in since,
	// whose ids nobody was told yet.
	unfinished map[Day]*op
	late       map[came]row

	noting sync.Mutex // held while state.db is told of positions; never asked for with the turn

	mu    sync.Mutex
	days  map[Day]*day
	dying map[Day]*day      // removed, but readers may be in them
	warm  []*day            // days that keep connections for reading, least recently used first
	why   map[string]string // of files that were set aside

	wake    chan struct{} // the keeper
	closing chan leave
	work    chan *day
	sealed  chan struct{} // replaced whenever the sealer has done something
	sealErr error         // of the last attempt, guarded by mu
	stop    context.CancelFunc
	done    sync.WaitGroup
	stats   counters
	closed  bool // under turn
}

type counters struct {
	rows, slow, queries atomic.Int64
}

// file is a source file and how far it is in.
type file struct {
	id    int64
	pos   int64
	dirty bool // pos is not in state.db yet; the days know it
}

var migrations = []store.Migration{{Name: "positions", SQL: `
CREATE TABLE file (id INTEGER PRIMARY KEY, dev INTEGER NOT NULL, ino INTEGER NOT NULL, path TEXT NOT NULL, pos INTEGER NOT NULL, UNIQUE (dev, ino, path));
CREATE TABLE pending (id INTEGER PRIMARY KEY, day INTEGER NOT NULL, data BLOB NOT NULL, sources BLOB NOT NULL);`},
	{Name: "damage", SQL: "CREATE TABLE damaged (name TEXT PRIMARY KEY, why TEXT NOT NULL); CREATE TABLE floor (day INTEGER PRIMARY KEY, ino INTEGER NOT NULL, seq INTEGER NOT NULL);"}}

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
		opt: o, turn: make(chan struct{}, 1), files: map[FileID]*file{}, days: map[Day]*day{}, floors: map[Day]floor{}, dying: map[Day]*day{}, why: map[string]string{},
		chunkRows: segmentRows, layLeaves: layLeaves, quietTicks: quietTicks, cache: newCache(headCache), wake: make(chan struct{}, 1), closing: make(chan leave, leavesMax),
		work: make(chan *day, 64), sealed: make(chan struct{}),
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
	s.done.Go(func() { s.keep(run) })
	s.done.Go(func() { s.closeSoon(run) })
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
	name, renamed := renameAside(path)
	if renamed != nil {
		return false, classify(path, renamed)
	}
	clear(s.files)
	clear(s.floors)
	cause := err
	if s.state, err = store.Open(ctx, store.Options{Path: path, Migrations: migrations}); err == nil {
		s.noteWhy(name, cause)
	}
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
		if err := s.loadFloors(q); err != nil {
			return err
		}
		return s.loadWhy(q)
	})
}

func (s *Store) loadFloors(q store.Querier) error {
	rows, err := q.Query("SELECT day, ino, seq FROM floor")
	if err != nil {
		return err
	}
	for rows.Next() {
		var date int64
		var f floor
		if err := rows.Scan(&date, &f.ino, &f.seq); err != nil {
			return err
		}
		f.date = Day(date)
		s.floors[f.date] = f
	}
	return rows.Err()
}

func (s *Store) dayPath(d Day) string { return filepath.Join(s.opt.Dir, d.String()+".db") }

// Close writes what is left of the positions and ends what goes on in the
// background. It waits for queries in progress.
func (s *Store) Close() error {
	<-s.turn
	if s.closed {
		s.turn <- struct{}{}
		return nil
	}
	s.closed = true
	err := s.writeNotes(context.Background(), s.toNote())
	s.turn <- struct{}{}
	s.stop()
	s.done.Wait()
	for len(s.closing) > 0 {
		(<-s.closing).end(s.opt.Log)
	}
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
