package tor

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/config"
	"vpnd/pkg/durable"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/services/tor/bridges"
	"vpnd/pkg/services/tor/streams"
	"vpnd/pkg/torctl"
)

// lease is how long lanes keeps a state without another ask.
const lease = 10 * time.Second

// Service owns the tor process.
type Service struct {
	cfg        config.Tor
	paths      paths
	log        *slog.Logger
	publish    func(events.Event)
	siblings   siblings
	owners     owners
	book       book
	bridges    *bridges.Book
	wishMu     sync.Mutex // one change at a time, and the disk is waited for under it
	settingsMu sync.Mutex // the same
	settings   atomic.Pointer[settings]
	canary     atomic.Pointer[[]netip.Addr] // addresses of the leak test's device
	kick       chan struct{}                // wakes the keeper
	askNow     chan struct{}                // wakes the asker
	askMu      sync.Mutex                   // one ask at a time, so that the last decision is the last asked
	glances    chan struct{}                // see glance

	mu       sync.Mutex // guards the rest; nothing that may wait is done under it
	wish     wish
	obs      observation
	status   api.Status // what is only shown
	gateways []netip.Addr
	answered time.Time // last answer of lanes
	silent   bool      // the last question was not answered
	asked    decision
	hold     time.Time     // until then nothing but up is asked: an adopted tor is looked at first
	changed  chan struct{} // closed and replaced when the process changed, or that it has bridges
	client   *torctl.Client
	attacher *streams.Attacher
}

// Definition makes the service.
func Definition() service.Definition { return service.Definition{Name: "tor", Build: build} }

func build(_ context.Context, env *service.Env) (service.Instance, error) {
	s, err := newService(env.Config, paths{env.StateDir, env.RunDir}, env.Log, env.Events.Publish, siblingsOf(env))
	if err != nil {
		return service.Instance{}, err
	}
	s.register(env.Server)
	return service.Instance{Run: func(ctx context.Context) error { return s.run(ctx, env.Extra) }}, nil
}

func newService(c config.Config, p paths, log *slog.Logger, publish func(events.Event), sib siblings) (*Service, error) {
	w, err := loadWish(p.wish())
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "the wish for lane tor cannot be read: %v", err).
			WithHint("remove %s, which means a wish of up, or write {\"wish\":\"down\",\"process\":\"start\"} into it", p.wish())
	}
	chosen, err := loadSettings(p.settings())
	if err != nil {
		return nil, err
	}
	bridgeBook, err := bridges.Load(p.bridges())
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: c.Tor, paths: p, log: log, publish: publish, siblings: sib, wish: w, bridges: bridgeBook,
		owners: owners{lane: c.Lanes.Tor.IPv4, ask: sib.owner},
		kick:   make(chan struct{}, 1), askNow: make(chan struct{}, 1), changed: make(chan struct{}),
		glances: make(chan struct{}, 1),
	}
	s.settings.Store(chosen)
	s.obs.process = api.ProcessStarting
	s.status.Lane, s.status.Since = string(lanes.TorBlocked), time.Now().UTC()
	return s, nil
}

func (s *Service) register(srv *rpc.Server) {
	rpc.Handle(srv, api.GetStatus, func(context.Context, *struct{}) (*api.Status, error) { return s.Status(), nil })
	rpc.Handle(srv, api.SetWish, func(ctx context.Context, r *api.WishRequest) (*api.Status, error) {
		for _, f := range [][2]string{{"message", r.Body.Message}, {"reason", r.Body.Reason}} {
			if strings.ContainsFunc(f[1], unprintable) {
				return nil, fault.InvalidField(f[0], "holds characters that cannot be printed; write one line of text")
			}
		}
		return s.setWish(ctx, func(w *wish) { w.take(r) })
	})
	rpc.Handle(srv, api.Start, func(ctx context.Context, _ *struct{}) (*api.Status, error) {
		st, err := s.setWish(ctx, func(w *wish) { w.Process = processStart })
		if err != nil {
			return st, err
		}
		short, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		_ = s.await(short, func() bool { // where tor is missing, the answer says so
			return s.obs.process != api.ProcessStopped || !s.obs.gateways || s.wish.Process != processStart
		})
		return s.Status(), nil
	})
	s.registerMore(srv)
	rpc.Handle(srv, api.Stop, func(ctx context.Context, _ *struct{}) (*api.Status, error) {
		if st, err := s.setWish(ctx, func(w *wish) { w.Process = processStop }); err != nil {
			return st, err
		}
		err := s.await(ctx, func() bool { return s.obs.process == api.ProcessStopped || s.wish.Process != processStop })
		if err != nil {
			return nil, err
		}
		return s.Status(), nil
	})
}

// await waits until something holds that process and bridges decide; it is
// asked with mu held.
func (s *Service) await(ctx context.Context, holds func() bool) error {
	for {
		s.mu.Lock()
		done, changed := holds(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setWish makes a wish durable and returns when lanes has what follows from it.
func (s *Service) setWish(ctx context.Context, change func(*wish)) (*api.Status, error) {
	was, w, err := s.note(change)
	if err != nil {
		return nil, err
	}
	if w.Process != was.Process {
		kind := map[bool]string{true: "tor.start_wished", false: "tor.stop_wished"}[w.Process == processStart]
		s.log.InfoContext(ctx, kind, "request_id", rpc.RequestID(ctx))
		s.publish(events.Event{Type: kind})
	}
	if was.Process = w.Process; w != was {
		s.log.InfoContext(ctx, "tor.wish_changed", "wish", string(w.Wish), "request_id", rpc.RequestID(ctx))
		s.publish(events.Event{Type: "tor.wish_changed", Reason: string(w.Wish), Message: with(string(w.Wish), first(w.Reason, w.Message))})
	}
	wake(s.kick)
	if err := s.ask(ctx); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "the wish is noted, but lanes does not answer").
			WithHint("lane tor is blocked within %s; see 'vpnctl service list'", lease)
	}
	return s.Status(), nil
}

// note makes a changed wish durable, then lets it hold.
func (s *Service) note(change func(*wish)) (was, w wish, err error) {
	s.wishMu.Lock() // the last wish is the one on disk
	defer s.wishMu.Unlock()
	s.mu.Lock()
	was = s.wish
	s.mu.Unlock()
	w = was
	change(&w)
	if err := durable.WriteJSON(s.paths.wish(), w); err != nil {
		return was, w, err
	}
	s.mu.Lock()
	s.wish, s.hold = w, time.Time{}
	s.mu.Unlock()
	return was, w, nil
}

// Status tells all, at once even when tor hangs.
func (s *Service) Status() *api.Status {
	chosen, bridged := s.settings.Load(), s.bridges.Enabled()
	var global *api.Choice
	exits := len(chosen.Exits)
	if c, ok := chosen.Exits[""]; ok {
		c := s.choiceOf(c)
		global = &c
		exits--
	}
	type counts struct{ circuits, streams int }
	n, counted := glance(context.Background(), s, glanceFor, func(a *streams.Attacher) (n counts) {
		n.circuits, n.streams = a.Count()
		return n
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if counted || s.attacher == nil { // otherwise it is what was known last
		s.status.Circuits, s.status.Streams = n.circuits, n.streams
	}
	st, d := s.status, decide(s.wish, s.obs)
	st.Wish, st.WishProcess, st.Message = s.wish.Wish, s.wish.Process, s.wish.Message
	st.Reason, st.Hint = d.reason, d.hint
	if asked := s.silent || !s.answered.IsZero(); asked && time.Since(s.answered) > lease {
		st.Lane, st.Reason = string(lanes.TorBlocked), "lanes does not answer"
	}
	st.Process, st.Bootstrap, st.EnoughDirInfo = s.obs.process, s.obs.boot, s.obs.dir
	st.Circuit, st.NetworkLive, st.Probe = s.obs.circuit && st.Circuits > 0, s.obs.live, s.obs.probe.last
	st.ClockSkew = int64(s.obs.skew / time.Second)
	st.Isolation, st.Bridges, st.Exit, st.Exits = chosen.Isolation, bridged, global, exits
	return &st
}

func (s *Service) run(ctx context.Context, extra []net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	web := pageServer(func() string { return forDevices(s.Status()) }, s.log)
	dns := &dnsTCP{upstream: s.dnsPort, source: s.owners.loopback, idle: 10 * time.Second, timeout: 5 * time.Second}
	webSlots, dnsSlots := newSlots(maxConns, maxEach), newSlots(maxConns, maxEach)
	for i, l := range extra {
		if i < 2 {
			wg.Go(func() { _ = web.Serve(limited{l, webSlots}) })
		} else {
			wg.Go(func() { _ = dns.serve(ctx, limited{l, dnsSlots}) })
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
	}
	context.AfterFunc(ctx, func() { _ = web.Close() })
	k := &keeper{Service: s}
	k.adopt()
	wg.Go(func() { s.askLoop(ctx) })
	wg.Go(func() { s.probeLoop(ctx) })
	k.run(ctx)
	return nil
}

// unprintable tells characters that a terminal or a page could act on.
func unprintable(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }

// forDevices is the reason as devices may read it: the operator's message, or
// what is wrong without the details, which are about this host.
func forDevices(st *api.Status) string {
	if st.Wish == api.WishMaintenance && st.Message != "" {
		return st.Message
	}
	what, _, _ := strings.Cut(st.Reason, ": ")
	return what
}

// dnsPort is where DNS over TCP is answered; not valid while the lane is not up.
func (s *Service) dnsPort() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gateways) == 0 || !s.gateways[0].Is4() || s.status.Lane != string(lanes.TorUp) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(s.gateways[0], s.cfg.DNSPort)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func missing(path string) bool { _, err := os.Lstat(path); return err != nil }
