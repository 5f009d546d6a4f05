package streams_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/pkg/services/tor/streams"
	"vpnd/pkg/torpath"
)

// world is a tor, the answers of others, and the Attacher between them.
type world struct {
	t    testing.TB
	tor  *fake
	path string
	life string
	a    *streams.Attacher
	stop func()

	mu      sync.Mutex
	choices map[netip.Addr]streams.Choice
	refused map[netip.Addr]bool
	perDest bool
	lookup  func() error // before a choice is answered
	asked   int
	exits   []string // that run, the most wanted first; the country is the first letter
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, tor: newFake(), path: filepath.Join(t.TempDir(), "journal"), life: "one",
		choices: map[netip.Addr]streams.Choice{}, refused: map[netip.Addr]bool{}, exits: []string{fp("A"), fp("B"), fp("C")}}
	w.start()
	return w
}

func (w *world) rules() streams.Rules {
	return streams.Rules{
		Device: func(a netip.Addr) netip.Addr {
			if a.IsLoopback() {
				return netip.Addr{}
			}
			return a
		},
		Refuse: func(d netip.Addr) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.refused[d] },
		AnyChoice: func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.choices) > 0
		},
		Choice: func(_ context.Context, d netip.Addr) (streams.Choice, bool, error) {
			w.mu.Lock()
			w.asked++
			c, ok := w.choices[d]
			lookup := w.lookup
			w.mu.Unlock()
			if lookup != nil {
				if err := lookup(); err != nil {
					return streams.Choice{}, false, err
				}
			}
			return c, ok, nil
		},
		PerDestination: func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.perDest },
		Virtual:        func(a netip.Addr) bool { return netip.MustParsePrefix("10.192.0.0/10").Contains(a) },
		Path: func(e torpath.Exits, _ torpath.Target, avoid map[string]bool) ([]string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, x := range w.exits {
				if !avoid[x] && (slices.Contains(e.Fingerprints, x) || slices.Contains(e.Countries, x[:1])) {
					return []string{fp("G"), fp("M"), x}, nil
				}
			}
			return nil, torpath.ErrNoExit
		},
	}
}

// start is a service that begins; kill ends it with no farewell.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	a, events, err := streams.Start(ctx, w.tor, w.rules(), w.path, w.life, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { a.Run(ctx, events); close(done) }()
	w.a, w.stop = a, func() { cancel(); <-done }
}

func (w *world) choose(d netip.Addr, strict bool, exits ...string) {
	w.mu.Lock()
	w.choices[d] = streams.Choice{Exits: torpath.Exits{Fingerprints: exits}, Strict: strict}
	w.mu.Unlock()
	w.a.ChoicesChanged()
}

func (w *world) set(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

// exit opens a stream, waits for its place and gives the exit: T is tor's own
// choice, - closed.
func (w *world) exit(d netip.Addr, target string) string {
	w.t.Helper()
	id := w.tor.open(d.String()+":4000", target)
	w.settle(5 * time.Second)
	return w.where(id)
}

func (w *world) where(id string) string {
	w.t.Helper()
	on := w.tor.on(id)
	switch {
	case w.tor.wasClosed(id):
		return "-"
	case len(on) == 0:
		w.t.Fatalf("stream %s is nowhere: %q", id, w.tor.calls)
	}
	return on[len(on)-1].exit[:1]
}

func (w *world) settle(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (w *world) want(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("left at %s, want %s", got, want)
	}
}

// within runs a test in model time.
func within(t *testing.T, do func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		do(w)
		w.stop()
		w.settle(time.Minute) // timers of the fake
	})
}
