package lanes

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// The states of a lane.
const (
	stateUp      = "up"
	stateBlocked = "blocked"
	stateDown    = "down"
	stateFailed  = "failed"
)

// lane is one interface.
type lane struct {
	name    api.Name
	cfg     config.Lane
	open    wgdev.OpenConfig
	keyPath string

	mu     sync.RWMutex
	dev    *wgdev.Device // nil while the interface is not there
	came   chan struct{} // closed when dev is set, replaced when it is lost
	public wgdev.Key
	state  string
	reason string
	at     time.Time // of state
}

func newLane(name api.Name, c config.Lane, cfg Config) *lane {
	return &lane{
		name: name, cfg: c, keyPath: filepath.Join(cfg.StateDir, c.Interface+".key"),
		open: wgdev.OpenConfig{
			Interface: c.Interface, MTU: c.MTU, RunDir: cfg.RunDir, Prefer: wgdev.Prefer(cfg.Lanes.WireGuard),
			Daemon: append(slices.Clone(cfg.Daemon), c.Interface, strconv.Itoa(c.MTU), cfg.RunDir),
		},
		state: stateDown, reason: "starting", at: since(), came: make(chan struct{}),
	}
}

// bringUp makes the interface as it should be, or adopts it as it is. It tells
// whether the device is new and so has no peers. Run alone calls it, while
// there is no device.
func (l *lane) bringUp(ctx context.Context) (fresh bool, err error) {
	defer func() {
		if err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.set(stateFailed, err.Error())
		}
	}()
	key, err := loadKey(l.keyPath)
	if err != nil {
		return false, err
	}
	dev, err := wgdev.Open(ctx, l.open)
	if err != nil {
		return false, err
	}
	info, err := dev.Info(ctx)
	if err == nil {
		err = dev.Configure(ctx, wgdev.Config{PrivateKey: key, ListenPort: l.cfg.Port})
	}
	if err == nil {
		err = l.address(ctx)
	}
	if err != nil {
		_ = dev.Close()
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dev, l.public = dev, key.Public()
	close(l.came)
	if l.name == api.Tor {
		l.set(stateBlocked, "nothing passes: Tor is not connected to this lane")
	} else {
		l.set(stateUp, "")
	}
	return info.PublicKey.IsZero(), nil
}

// address gives the interface the gateway's addresses and brings it up.
func (l *lane) address(ctx context.Context) error {
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	return links.Apply(ctx, link.Interface{
		Name: l.cfg.Interface, MTU: l.cfg.MTU, TxQueueLen: txQueueLen, Up: true,
		Addresses: []netip.Prefix{
			netip.PrefixFrom(l.cfg.IPv4.Addr().Next(), l.cfg.IPv4.Bits()),
			netip.PrefixFrom(l.cfg.IPv6.Addr().Next(), l.cfg.IPv6.Bits()),
		},
	})
}

// set notes a state. The caller holds mu.
func (l *lane) set(state, reason string) {
	if l.state != state {
		l.at = since()
	}
	l.state, l.reason = state, reason
}

// patience is how long a call waits for an interface that is being made: a
// restart of ours takes some 30 ms, and callers should not notice it.
const patience = 5 * time.Second

// device gives the interface, and waits for one that is on its way.
func (l *lane) device(ctx context.Context) (*wgdev.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		l.mu.RLock()
		dev, came, reason := l.dev, l.came, l.reason
		l.mu.RUnlock()
		if dev != nil {
			return dev, nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "lane %s is not up: %s", l.name, reason).WithReason("lane_down").
				WithRetryAfter(time.Second)
		}
	}
}

// use runs fn on the device. One that turns out to be gone is made anew by
// Run, and fn, which can be repeated, runs again on that.
func (l *lane) use(ctx context.Context, fn func(d *wgdev.Device) error) error {
	for tries := 2; ; tries-- {
		d, err := l.device(ctx)
		if err != nil {
			return err
		}
		if err = fn(d); !errors.Is(err, wgdev.ErrGone) {
			return err
		}
		l.lost(d)
		if tries == 1 {
			return fault.Wrap(err, fault.Unavailable, "the interface of lane %s has gone and is being made again", l.name).
				WithRetryAfter(time.Second)
		}
	}
}

// lost forgets a device that has gone, unless it was replaced already.
func (l *lane) lost(d *wgdev.Device) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dev == d {
		_ = d.Close()
		l.dev, l.came = nil, make(chan struct{})
		l.set(stateFailed, "the interface has gone and is being made again")
	}
}

func (l *lane) up() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dev != nil
}

func (l *lane) upsert(ctx context.Context, p ...wgdev.Peer) error {
	return l.use(ctx, func(d *wgdev.Device) error { return d.Upsert(ctx, p...) })
}

func (l *lane) remove(ctx context.Context, keys ...wgdev.Key) error {
	return l.use(ctx, func(d *wgdev.Device) error { return d.Remove(ctx, keys...) })
}

func (l *lane) peers(ctx context.Context) (out []wgdev.PeerState, err error) {
	err = l.use(ctx, func(d *wgdev.Device) error {
		out, err = d.Peers(ctx)
		return err
	})
	return out, err
}

// difference counts what equalize had to do.
type difference struct{ added, changed, removed int }

// equalize makes the interface hold exactly the wanted peers. Peers that were
// missing get their last endpoints, so that the server can speak first.
func (l *lane) equalize(ctx context.Context, want map[id.Device]wanted, index int, book *wgdev.EndpointBook) (difference, error) {
	have, err := l.peers(ctx)
	if err != nil {
		return difference{}, err
	}
	missing := make(map[wgdev.Key]wgdev.Peer, len(want))
	for _, w := range want {
		missing[w.key] = w.peer(index)
	}
	var done difference
	var extra []wgdev.Key
	var upsert []wgdev.Peer
	for _, p := range have {
		w, ok := missing[p.PublicKey]
		delete(missing, p.PublicKey)
		switch {
		case !ok:
			extra = append(extra, p.PublicKey)
		case !p.SameConfig(w):
			upsert = append(upsert, w)
		}
	}
	done.removed, done.changed, done.added = len(extra), len(upsert), len(missing)
	if err := l.remove(ctx, extra...); err != nil {
		return difference{}, err
	}
	add := make([]wgdev.Peer, 0, len(missing))
	for _, p := range missing {
		add = append(add, p)
	}
	if err := l.upsert(ctx, append(upsert, book.Fill(add)...)...); err != nil {
		return difference{}, err
	}
	return done, nil
}

func (l *lane) describe() api.Lane {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := api.Lane{
		Name: l.name, State: l.state, Reason: l.reason, Since: l.at, Interface: l.cfg.Interface, Backend: "none",
		Port: int(l.cfg.Port), MTU: l.cfg.MTU, DNS: slices.Clone(l.cfg.DNS),
		IPv4: netip.PrefixFrom(l.cfg.IPv4.Addr().Next(), l.cfg.IPv4.Bits()),
		IPv6: netip.PrefixFrom(l.cfg.IPv6.Addr().Next(), l.cfg.IPv6.Bits()),
	}
	if out.DNS == nil {
		out.DNS = []netip.Addr{}
	}
	if l.dev != nil {
		out.Backend, out.PublicKey = string(l.dev.Backend()), l.public.String()
	}
	return out
}
