//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// Config is what a Supervisor starts with.
type Config struct {
	Services map[string]Spec
	// RunDir is a directory of the supervisor's own, made if missing. Its lock
	// file keeps a second supervisor away.
	RunDir string
	Timing Timing
}

// Deps are the supervisor's ways out.
type Deps struct {
	Log *slog.Logger
	// Assign gives what a service is to be told at each start; nil bytes for
	// nothing. It may be called for several services at once.
	Assign func(name string) ([]byte, error)
	// Stdout and Stderr get the children's output, line by line; os.Stdout
	// and os.Stderr by default.
	Stdout, Stderr io.Writer
}

// stuckTime is how long Run waits for processes that it has killed.
const stuckTime = 5 * time.Second

// Supervisor runs a set of services.
type Supervisor struct {
	runDir         string
	timing         Timing
	log            *slog.Logger
	logContext     context.Context // of log records that belong to no call
	assign         func(name string) ([]byte, error)
	stdout, stderr *sink
	events         hub

	applying sync.Mutex // one Apply at a time

	mu      sync.Mutex // guards the next five
	ran     bool
	phase   phase
	units   map[string]*unit
	outputs map[*output]struct{} // pipes being read

	killAll    chan struct{} // closed when the time for stopping is up
	giveUp     chan struct{} // closed when the time for dying is up
	goroutines sync.WaitGroup
}

type phase int

const (
	made phase = iota
	running
	over
)

// New checks the configuration; it does no I/O. The error is a fault.Invalid
// that lists every problem.
func New(cfg Config, deps Deps) (*Supervisor, error) {
	p := problems{fields: Validate(cfg.Services)}
	if !strings.HasPrefix(cfg.RunDir, "/") {
		p.add("run_dir", "must be an absolute path, not %q", cfg.RunDir)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if deps.Stdout == nil {
		deps.Stdout = os.Stdout
	}
	if deps.Stderr == nil {
		deps.Stderr = os.Stderr
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{
		runDir: cfg.RunDir, timing: cfg.Timing.withDefaults(), log: deps.Log, logContext: context.Background(),
		assign: deps.Assign, stdout: newSink(deps.Stdout), stderr: newSink(deps.Stderr),
		events: hub{subs: map[*subscriber]struct{}{}},
		units:  map[string]*unit{}, outputs: map[*output]struct{}{},
		killAll: make(chan struct{}), giveUp: make(chan struct{}),
	}
	for name, spec := range cfg.Services {
		s.units[name] = s.newUnit(name, spec)
	}
	return s, nil
}

// Run opens the listeners, starts every enabled service at once, and keeps
// them running until ctx ends. Then it stops them, dependents first, removes
// the sockets and returns when all have ended. A second supervisor on the same
// RunDir is refused with fault.Conflict.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	again := s.ran
	s.ran = true
	s.mu.Unlock()
	if again {
		return errors.New("supervise: Run called twice")
	}
	unlock, err := lock(s.runDir)
	if err != nil {
		return err
	}
	defer unlock()
	// Nothing that the supervisor's own parent left open is for the children.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("mark open files close-on-exec: %w", err)
	}
	// Writing to a closed standard output is an error and not a death.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, unix.SIGPIPE)
	defer signal.Stop(ignored)
	go s.stdout.run()
	go s.stderr.run()

	s.mu.Lock()
	s.phase = running
	for _, u := range s.units {
		s.prepare(u)
	}
	for _, u := range s.units {
		go u.run(u.spec.IsEnabled())
	}
	s.mu.Unlock()

	<-ctx.Done()
	return s.shutdown()
}

// prepare opens the listeners of a unit that has not started, so that they are
// there before the first service calls another. What goes wrong is told by the
// start that follows.
func (s *Supervisor) prepare(u *unit) {
	if u.spec.IsEnabled() {
		_ = u.sockets.open(u.spec)
	}
}

func (s *Supervisor) shutdown() error {
	s.mu.Lock()
	s.phase = over
	units := maps.Clone(s.units)
	s.mu.Unlock()

	kill := time.AfterFunc(s.timing.Shutdown, func() { close(s.killAll) })
	defer kill.Stop()
	quit := time.AfterFunc(s.timing.Shutdown+stuckTime, func() { close(s.giveUp) })
	defer quit.Stop()

	err := s.endUnits(units)
	s.events.close()
	s.mu.Lock()
	for o := range s.outputs {
		// Whoever still holds the other end was detached by a service.
		o.r.Close()
	}
	s.mu.Unlock()
	if err == nil {
		// With an error a process is stuck in the kernel and its goroutines
		// with it.
		s.goroutines.Wait()
		s.stdout.end()
		s.stderr.end()
	}
	return err
}

// endUnits stops units for good, dependents first.
func (s *Supervisor) endUnits(units map[string]*unit) error {
	after := map[string][]string{}
	for name, u := range units {
		after[name] = u.needs()
	}
	var mu sync.Mutex
	var errs []error
	inStopOrder(after, func(name string) {
		u := units[name]
		r := request{act: doEnd, done: make(chan error, 1)}
		select {
		case u.requests <- r:
			err := <-r.done
			<-u.ended
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		case <-u.ended:
		}
	})
	return errors.Join(errs...)
}

// readOutput reads a child's pipe to its end.
func (s *Supervisor) readOutput(o *output) {
	s.mu.Lock()
	s.outputs[o] = struct{}{}
	s.mu.Unlock()
	s.goroutines.Go(func() {
		o.read()
		s.mu.Lock()
		delete(s.outputs, o)
		s.mu.Unlock()
	})
}

// Status lists every service, by name.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	units := slices.Collect(maps.Values(s.units))
	s.mu.Unlock()
	list := make([]Status, len(units))
	for i, u := range units {
		list[i] = u.snapshot()
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Get gives one service; fault.NotFound otherwise.
func (s *Supervisor) Get(name string) (Status, error) {
	u, err := s.unit(name)
	if err != nil {
		return Status{}, err
	}
	return u.snapshot(), nil
}

// Start starts a service that was stopped, or at once one that waits for its
// next try. It returns when the service answers (ready or not), when it has
// died, or when ctx ends; the service goes on trying in any case.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	return s.command(ctx, name, doStart)
}

// Restart stops a service and starts it again; callers meanwhile wait. It
// returns like Start. Restarts asked for during another follow it, as one.
func (s *Supervisor) Restart(ctx context.Context, name string) error {
	return s.command(ctx, name, doRestart)
}

// Stop stops a service until Start, Restart or a new supervisor; callers are
// refused meanwhile. It returns when the process has ended.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	return s.command(ctx, name, doStop)
}

func (s *Supervisor) unit(name string) (*unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.units[name]; ok {
		return u, nil
	}
	return nil, fault.New(fault.NotFound, "no service is called %q", plain(name, 40)).
		WithHint("known are %s", strings.Join(slices.Sorted(maps.Keys(s.units)), ", "))
}

func (s *Supervisor) command(ctx context.Context, name string, act action) error {
	u, err := s.unit(name)
	if err != nil {
		return err
	}
	if err := s.alive(); err != nil {
		return err
	}
	return u.ask(ctx, request{act: act})
}

func (s *Supervisor) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != running {
		return fault.New(fault.Unavailable, "the supervisor is not running")
	}
	return nil
}

// ask hands a request to the unit's goroutine and waits for its answer.
func (u *unit) ask(ctx context.Context, r request) error {
	r.done = make(chan error, 1)
	select {
	case u.requests <- r:
	case <-u.ended:
		return fault.New(fault.Unavailable, "%s is no longer supervised", u.name)
	case <-ctx.Done():
		return u.waited(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return u.waited(ctx)
	}
}

func (u *unit) waited(ctx context.Context) error {
	st := u.snapshot()
	code := fault.From(ctx.Err()).Code
	return fault.Wrap(ctx.Err(), code, "%s is still %s", u.name, st.State).WithHint("it goes on without you; look at its status")
}

// needs is Spec.After, for whoever is not the unit's goroutine.
func (u *unit) needs() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.spec.After
}
