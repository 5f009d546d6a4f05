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

const (
	// txQueueLen is the interfaces' queue: with the default of 500 packets bursts
	// of UDP are lost before WireGuard sees them.
	txQueueLen = 5000

	// patience is how long a call waits for an interface that is being made: a
	// restart of ours takes some 30 ms, and callers should not notice it.
	patience = 5 * time.Second

	// probeWait is how long a device may take for a call that asks for nothing.
	probeWait = 10 * time.Second

	laneDown = "lane_down" // reason of errors
	whyGone  = "the interface has gone and is being made again"
)

// lane is one interface.
type lane struct {
	name    api.Name
	cfg     config.Lane
	open    wgdev.OpenConfig
	keyPath string
	wake    chan struct{} // asks for a look at the interface now
	changed chan struct{} // asks for a comparison of its peers now

	route sync.Mutex  // one use of links at a time
	links *link.Links // for the routing rule, kept open; nil before the first use

	mu     sync.RWMutex
	dev    *wgdev.Device // nil while the interface is not there
	tried  chan struct{} // closed at the end of the next attempt to bring it up
	public wgdev.Key
	canary wgdev.Key // of the leak test's device; zero when it has no peer
	state  string
	reason string
	at     time.Time // of state

	shown       string // the state of a lane that works; a lane tor may be blocked
	shownReason string
}

func newLane(name api.Name, c config.Lane, cfg Config) *lane {
	shown, why := stateUp, ""
	if name == api.Tor {
		shown, why = stateBlocked, whyStarted
	}
	return &lane{
		shown: shown, shownReason: why,
		name: name, cfg: c, keyPath: filepath.Join(cfg.StateDir, c.Interface+".key"),
		open: wgdev.OpenConfig{
			Interface: c.Interface, MTU: c.MTU, RunDir: cfg.RunDir, Prefer: wgdev.Prefer(cfg.Lanes.WireGuard),
			Daemon: append(slices.Clone(cfg.Daemon), c.Interface, strconv.Itoa(c.MTU), cfg.RunDir),
		},
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), tried: make(chan struct{}),
		state: stateDown, reason: "starting", at: time.Now().UTC(),
	}
}

// bringUp makes the interface as it should be, or adopts it as it is. It tells
// whether the device is new and so has no peers. The watcher alone calls it,
// while there is no device.
func (l *lane) bringUp(ctx context.Context) (fresh bool, err error) {
	dev, key, fresh, err := l.make(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.tried)
	l.tried = make(chan struct{})
	if err != nil {
		l.set(stateFailed, err.Error())
		return false, err
	}
	l.dev, l.public = dev, key
	l.setUp()
	return fresh, nil
}

func (l *lane) make(ctx context.Context) (_ *wgdev.Device, public wgdev.Key, fresh bool, err error) {
	key, err := loadKey(l.keyPath)
	if err != nil {
		return nil, public, false, err
	}
	if err := l.seal(); err != nil { // before the interface: its first packet must find the rule
		return nil, public, false, err
	}
	dev, err := wgdev.Open(ctx, l.open)
	if err != nil {
		return nil, public, false, err
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
		return nil, public, false, err
	}
	return dev, key.Public(), info.PublicKey.IsZero(), nil
}

// gateways are the interface's own addresses with the lane's prefixes.
func (l *lane) gateways() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(l.cfg.IPv4.Addr().Next(), l.cfg.IPv4.Bits()),
		netip.PrefixFrom(l.cfg.IPv6.Addr().Next(), l.cfg.IPv6.Bits()),
	}
}

// address gives the interface its addresses and switches it on.
func (l *lane) address(ctx context.Context) error {
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	return links.Apply(ctx, link.Interface{
		Name: l.cfg.Interface, MTU: l.cfg.MTU, TxQueueLen: txQueueLen, Up: true, Addresses: l.gateways(),
	})
}

// set notes a state. The caller holds mu.
func (l *lane) set(state, reason string) {
	if l.state != state {
		l.at = time.Now().UTC()
	}
	l.state, l.reason = state, reason
}

// setUp notes that the interface works. The caller holds mu.
func (l *lane) setUp() { l.set(l.shown, l.shownReason) }

// show says what state a working lane is in.
func (l *lane) show(state, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if state == stateUp {
		reason = ""
	}
	l.shown, l.shownReason = state, reason
	if l.dev != nil && l.state != stateFailed {
		l.setUp()
	}
}

// present tells whether the interface is there, with its addresses.
func (l *lane) present() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dev != nil
}

// signal wakes whoever waits on c, now or next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// device gives the interface, and waits for one that is on its way.
func (l *lane) device(ctx context.Context) (*wgdev.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for attempt := 0; ; attempt++ {
		l.mu.RLock()
		dev, tried, reason := l.dev, l.tried, l.reason
		l.mu.RUnlock()
		if dev != nil {
			return dev, nil
		}
		down := fault.New(fault.Unavailable, "lane %s is not up: %s", l.name, reason).WithReason(laneDown).
			WithRetryAfter(time.Second)
		if attempt == 2 { // a whole attempt was made meanwhile, in vain
			return nil, down
		}
		select {
		case <-tried:
		case <-ctx.Done():
			return nil, down
		}
	}
}

// use runs fn on the device. One that turns out to be gone is made anew by the
// watcher, and fn, which can be repeated, runs again on that.
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
			return fault.Wrap(err, fault.Unavailable, "lane %s: %s", l.name, whyGone).WithReason(laneDown).
				WithRetryAfter(time.Second)
		}
	}
}

// lost forgets a device that has gone, unless it was replaced already.
func (l *lane) lost(d *wgdev.Device) {
	l.mu.Lock()
	mine := l.dev == d
	if mine {
		l.dev = nil
		l.set(stateFailed, whyGone)
	}
	l.mu.Unlock()
	if mine {
		signal(l.wake)
		_ = d.Close() // waits for calls under way, which fail
	}
}

// probe asks the device for nothing, to find out whether it lives: it removes
// the one key that no peer can have, its own.
func (l *lane) probe(ctx context.Context) (alive bool, err error) {
	l.mu.RLock()
	dev, own := l.dev, l.public
	l.mu.RUnlock()
	if dev == nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	err = dev.Remove(ctx, own)
	if errors.Is(err, wgdev.ErrGone) {
		l.lost(dev)
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.dev != dev:
	case err != nil:
		l.set(stateFailed, "the interface does not answer: "+err.Error())
	case l.state == stateFailed:
		l.setUp()
	}
	return true, err
}

func (l *lane) describe() api.Lane {
	l.mu.RLock()
	defer l.mu.RUnlock()
	gateways := l.gateways()
	out := api.Lane{
		Name: l.name, State: l.state, Reason: l.reason, Since: l.at, Interface: l.cfg.Interface, Backend: "none",
		Port: int(l.cfg.Port), MTU: l.cfg.MTU, DNS: slices.Clone(l.cfg.DNS), IPv4: gateways[0], IPv6: gateways[1],
	}
	if out.DNS == nil {
		out.DNS = []netip.Addr{}
	}
	if l.dev != nil {
		out.Backend, out.PublicKey = string(l.dev.Backend()), l.public.String()
	}
	return out
}
