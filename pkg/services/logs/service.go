package logs

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/logstore"
	"vpnd/pkg/logtail"
	"vpnd/pkg/service"
	"vpnd/pkg/store"
)

// Deps are what the service needs beside its configuration. StateDir is its
// own, and never read for lines.
type Deps struct {
	StateDir string
	Log      *slog.Logger
	Publish  func(events.Event)
	Rescan   time.Duration // between two looks at all files; 0 is logtail's own choice
}

// Service is the log service. Make it with New, then Run it.
type Service struct {
	cfg   config.Logs
	deps  Deps
	lines *logstore.Store
	saved *store.DB

	appending chan struct{} // one token: who has it may append, or join the followers
	hub       *hub
	asking    *gate // questions
	exporting *gate // exports, which take as long as their reader
	catching  *gate // followers that are sent what they missed
	batch     int   // lines that are held of what one missed

	tail   logtail.Stats
	meter  meter
	refuse atomic.Pointer[fault.Error] // why the store takes nothing in
}

// Questions answered at once, and how many more may wait.
const (
	maxAsking, maxWaiting = 4, 60
	maxExporting          = 4
	maxFollowers          = 32
	maxCatching           = 3
)

// Definition makes the service.
func Definition() service.Definition { return service.Definition{Name: "logs", Build: build} }

// heapLimit is what the collector keeps the heap below while lines come at full
// speed, so that with SQLite's memory the process stays below 120 MiB.
const heapLimit = 80 << 20

func build(ctx context.Context, env *service.Env) (service.Instance, error) {
	debug.SetMemoryLimit(heapLimit)
	s, err := New(ctx, env.Config.Logs, Deps{StateDir: env.StateDir, Log: env.Log, Publish: env.Events.Publish})
	if err != nil {
		return service.Instance{}, err
	}
	s.Register(env.Server)
	return service.Instance{Run: s.Run}, nil
}

// New opens what is kept. Reading files begins with Run.
func New(ctx context.Context, cfg config.Logs, deps Deps) (*Service, error) {
	if err := checkDirs(cfg.Dirs, deps.StateDir); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, deps: deps, appending: make(chan struct{}, 1), hub: newHub(maxFollowers),
		asking: newGate(maxAsking, maxWaiting, "questions"), exporting: newGate(maxExporting, 0, "exports"),
		catching: newGate(maxCatching, maxFollowers, "followers that catch up"), batch: batchLines, meter: meter{files: map[string]*progress{}},
	}
	var err error
	s.saved, err = store.Open(ctx, store.Options{Path: filepath.Join(deps.StateDir, "saved.db"), Migrations: migrations(), Log: deps.Log})
	if err != nil {
		return nil, err
	}
	s.lines, err = logstore.Open(ctx, logstore.Options{
		Dir: filepath.Join(deps.StateDir, "days"), MaxAge: cfg.MaxAge.D(), MaxBytes: int64(cfg.MaxSize) << 20,
		Slow: cfg.SlowQuery.D(), Log: deps.Log,
	})
	if err != nil {
		return nil, errors.Join(err, s.saved.Close())
	}
	return s, nil
}

// checkDirs refuses to take in what the service itself writes.
func checkDirs(dirs []string, own string) error {
	own = resolved(own)
	for _, d := range dirs {
		if r := resolved(d); r == own || strings.HasPrefix(r, own+"/") {
			return fault.InvalidField("logs.dirs", "%s is where the log service keeps what it took in", d).
				WithHint("name the folders of the log files in logs.dirs")
		}
	}
	return nil
}

// resolved is the folder that a path leads to; one that is not there yet leads
// to itself.
func resolved(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return filepath.Clean(path)
}

// Run takes lines in until ctx ends, and closes the store.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		if err := errors.Join(s.lines.Close(), s.saved.Close()); err != nil {
			s.deps.Log.Error("log_store_not_closed", "err", err)
		}
	}()
	known, err := s.lines.Positions(ctx)
	if err != nil {
		return err
	}
	positions := make(map[logtail.FileID]int64, len(known))
	for id, pos := range known {
		positions[logtail.FileID(id)] = pos
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.retain(ctx) })
	wg.Go(func() { s.measure(ctx) })
	return logtail.Run(ctx, logtail.Options{
		Dirs: s.cfg.Dirs, Refuse: []string{s.deps.StateDir}, Positions: positions,
		Sink: s.sink, Gone: s.gone, Rescan: s.deps.Rescan, Log: s.deps.Log, Stats: &s.tail,
	})
}

// retain removes what is too old or too much, once an hour.
func (s *Service) retain(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		days, err := s.lines.Retain(ctx)
		if err != nil && ctx.Err() == nil {
			s.deps.Log.Warn("log_retention_failed", "err", err)
		}
		for _, d := range days {
			s.deps.Log.Info("log_day_removed", "day", d.String())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
