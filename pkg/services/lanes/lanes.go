// Package lanes is the one service with CAP_NET_ADMIN: it owns the two
// WireGuard interfaces, their addresses and keys, and the nftables table.
//
// It owns what the kernel (or wireguard-go) holds and brings it back to what is
// wanted, whoever changed it. Which peers there should be it is told by
// sessions, and forgets when it ends: a new epoch makes sessions tell it again,
// while the interfaces go on with the peers they have. A Lanes may be used
// concurrently. DESIGN.md tells about restarts.
package lanes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/nft"
	"vpnd/pkg/rpc"
	"vpnd/pkg/wgdev"
)

// txQueueLen is the interfaces' queue: with the default of 500 packets bursts
// of UDP are lost before WireGuard sees them.
const txQueueLen = 5000

// Lanes owns both lanes.
type Lanes struct {
	cfg     Config
	log     *slog.Logger
	publish func(events.Event)
	epoch   string
	wall    *nft.Firewall
	lanes   [2]*lane // vpn, tor
	book    *wgdev.EndpointBook

	synced atomic.Bool
	mu     sync.Mutex
	want   map[id.Device]wanted
	byKey  map[wgdev.Key]id.Device
	last   map[id.Device]api.PeerStats // as of the last reading

	// changing is held shared by single changes and exclusively by whoever
	// compares all peers, who would otherwise undo a change half made.
	changing sync.RWMutex

	wallState nft.State
	wallErr   error // guarded by mu
	guarded   bool  // the rules were in place once; Run alone uses it
}

// wanted is a device's peer on both interfaces.
type wanted struct {
	device id.Device
	key    wgdev.Key
	psk    wgdev.PresharedKey
	addrs  [2][]netip.Prefix // by lane
}

func (w wanted) peer(lane int) wgdev.Peer {
	return wgdev.Peer{PublicKey: w.key, PresharedKey: w.psk, AllowedIPs: w.addrs[lane]}
}

// Config says what the lanes are.
type Config struct {
	Lanes       config.Lanes
	ControlPort uint16
	StateDir    string   // interface keys, endpoints
	RunDir      string   // sockets of wireguard-go
	Daemon      []string // argv that ends up in wgdev.RunDaemon
}

// New prepares both lanes. It does no I/O; Run brings them up.
func New(cfg Config, log *slog.Logger, publish func(events.Event)) (*Lanes, error) {
	wall, err := nft.New(nft.Config{
		VPN: wallLane(cfg.Lanes.VPN), Tor: wallLane(cfg.Lanes.Tor), ControlPort: cfg.ControlPort,
		BlockedPorts: append([]uint16{}, cfg.Lanes.BlockedPorts...), PeerToPeer: cfg.Lanes.PeerToPeer,
	})
	if err != nil {
		return nil, err
	}
	l := &Lanes{
		cfg: cfg, log: log, publish: publish, epoch: rpc.NewRequestID(), wall: wall, book: wgdev.NewEndpointBook(),
		want: map[id.Device]wanted{}, byKey: map[wgdev.Key]id.Device{}, last: map[id.Device]api.PeerStats{},
		wallState: nft.State{VPN: nft.VPNUp, Tor: nft.TorBlocked},
	}
	l.lanes[0] = newLane(api.VPN, cfg.Lanes.VPN, cfg)
	l.lanes[1] = newLane(api.Tor, cfg.Lanes.Tor, cfg)
	return l, nil
}

func wallLane(c config.Lane) nft.Lane {
	return nft.Lane{
		Interface: c.Interface, Prefix4: c.IPv4, Prefix6: c.IPv6,
		Gateway4: c.IPv4.Addr().Next(), Gateway6: c.IPv6.Addr().Next(),
	}
}

func (l *Lanes) bookPath() string { return filepath.Join(l.cfg.StateDir, "endpoints.json") }

// Put programs a peer on both interfaces and returns when both have it.
func (l *Lanes) Put(ctx context.Context, p api.Peer) error {
	w, err := parse(p)
	if err != nil {
		return err
	}
	l.changing.RLock()
	defer l.changing.RUnlock()
	if err := l.bothLanes(func(i int) error { return l.lanes[i].upsert(ctx, w.peer(i)) }); err != nil {
		// Half a peer is none: what got through is taken back.
		undo := context.WithoutCancel(ctx)
		_ = l.bothLanes(func(i int) error { return l.lanes[i].remove(undo, w.key) })
		return err
	}
	l.mu.Lock()
	old, replaced := l.want[w.device]
	l.want[w.device], l.byKey[w.key] = w, w.device
	if replaced = replaced && old.key != w.key; replaced {
		delete(l.byKey, old.key)
		delete(l.last, w.device)
	}
	l.mu.Unlock()
	if !replaced {
		return nil
	}
	l.book.Forget(old.key)
	return l.bothLanes(func(i int) error { return l.lanes[i].remove(ctx, old.key) })
}

// Remove takes peers off both interfaces, returns when they are gone, and
// gives their last counters.
func (l *Lanes) Remove(ctx context.Context, removals []api.Removal) ([]api.PeerStats, error) {
	keys := make([]wgdev.Key, len(removals))
	for i, r := range removals {
		k, err := wgdev.ParsePublicKey(r.PublicKey)
		if err != nil {
			return nil, fault.InvalidField(fmt.Sprintf("body.peers[%d].public_key", i), "%v", err)
		}
		keys[i] = k
	}
	l.changing.RLock()
	defer l.changing.RUnlock()
	l.freshen(ctx)
	if err := l.bothLanes(func(i int) error { return l.lanes[i].remove(ctx, keys...) }); err != nil {
		return nil, err
	}
	l.book.Forget(keys...)
	var last []api.PeerStats
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range removals {
		if l.want[r.Device].key != keys[i] {
			continue // the device has another peer by now
		}
		if st, ok := l.last[r.Device]; ok {
			last = append(last, st)
		}
		delete(l.want, r.Device)
		delete(l.byKey, keys[i])
		delete(l.last, r.Device)
	}
	return last, nil
}

// freshenMax is how many peers there may be for a removal to read all counters
// once more: a device's cost must not depend on how many there are, so beyond
// it the last reading counts, a few seconds old.
const freshenMax = 1000

func (l *Lanes) freshen(ctx context.Context) {
	l.mu.Lock()
	n := len(l.want)
	l.mu.Unlock()
	if n <= freshenMax {
		if _, err := l.Stats(ctx); err != nil {
			l.log.Debug("last_counters_not_read", "err", err)
		}
	}
}

// Sync makes the interfaces hold exactly these peers.
func (l *Lanes) Sync(ctx context.Context, peers []api.Peer) (api.Synced, error) {
	want := make(map[id.Device]wanted, len(peers))
	byKey := make(map[wgdev.Key]id.Device, len(peers))
	for i, p := range peers {
		w, err := parse(p)
		if err != nil {
			return api.Synced{}, fmt.Errorf("peers[%d]: %w", i, err)
		}
		want[w.device], byKey[w.key] = w, w.device
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	var done [2]difference
	err := l.bothLanes(func(i int) (err error) {
		done[i], err = l.lanes[i].equalize(ctx, want, i, l.book)
		return err
	})
	if err != nil {
		return api.Synced{}, err
	}
	l.mu.Lock()
	l.want, l.byKey = want, byKey
	for d := range l.last {
		if _, ok := want[d]; !ok {
			delete(l.last, d)
		}
	}
	l.mu.Unlock()
	l.synced.Store(true)
	return api.Synced{
		Epoch: l.epoch, Added: max(done[0].added, done[1].added),
		Changed: max(done[0].changed, done[1].changed), Removed: max(done[0].removed, done[1].removed),
	}, nil
}

// Stats reads all counters and remembers where peers were heard from.
func (l *Lanes) Stats(ctx context.Context) ([]api.PeerStats, error) {
	var states [2][]wgdev.PeerState
	err := l.bothLanes(func(i int) (err error) {
		states[i], err = l.lanes[i].peers(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	stats := make(map[id.Device]*api.PeerStats)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, peers := range states {
		l.book.Observe(peers)
		for _, p := range peers {
			device, ok := l.byKey[p.PublicKey]
			if !ok {
				continue
			}
			st := stats[device]
			if st == nil {
				st = &api.PeerStats{Device: device}
				stats[device] = st
			}
			note(st, l.lanes[i].name, p)
		}
	}
	out := make([]api.PeerStats, 0, len(stats))
	for d, st := range stats {
		l.last[d] = *st
		out = append(out, *st)
	}
	return out, nil
}

// note adds what one interface knows of a device.
func note(st *api.PeerStats, lane api.Name, p wgdev.PeerState) {
	c := api.Counters{RxBytes: int64(p.RxBytes), TxBytes: int64(p.TxBytes)}
	if lane == api.VPN {
		st.VPN = c
	} else {
		st.Tor = c
	}
	if p.LastHandshake.IsZero() || (st.LastHandshake != nil && st.LastHandshake.After(p.LastHandshake)) {
		return
	}
	t := p.LastHandshake.UTC()
	st.LastHandshake, st.HandshakeLane = &t, lane
	if p.Endpoint.IsValid() {
		st.Endpoint = p.Endpoint.String()
	}
}

// List describes both lanes.
func (l *Lanes) List() []api.Lane {
	l.mu.Lock()
	peers, wallErr := len(l.want), l.wallErr
	l.mu.Unlock()
	out := make([]api.Lane, len(l.lanes))
	for i, ln := range l.lanes {
		out[i] = ln.describe()
		out[i].Peers = peers
		if out[i].State == stateUp && wallErr != nil {
			out[i].State, out[i].Reason = stateFailed, wallErr.Error()
		}
	}
	return out
}

// Ready tells why a lane does not carry what it should.
func (l *Lanes) Ready() error {
	for _, ln := range l.List() {
		if ln.State == stateFailed || ln.State == stateDown {
			return fault.New(fault.Unavailable, "lane %s: %s", ln.Name, ln.Reason)
		}
	}
	return nil
}

func (l *Lanes) bothLanes(do func(i int) error) error {
	tor := make(chan error, 1)
	go func() { tor <- do(1) }()
	vpn := do(0)
	return errors.Join(vpn, <-tor)
}

func parse(p api.Peer) (wanted, error) {
	w := wanted{device: p.Device}
	var err error
	if w.key, err = wgdev.ParsePublicKey(p.PublicKey); err != nil {
		return w, fault.InvalidField("body.public_key", "%v", err)
	}
	if w.psk, err = wgdev.ParsePresharedKey(p.PresharedKey); err != nil {
		return w, fault.InvalidField("body.preshared_key", "is not a preshared key")
	}
	for i, addrs := range [2][]netip.Addr{p.VPN, p.Tor} {
		for _, a := range addrs {
			if !a.IsValid() {
				return w, fault.InvalidField("body", "an address is missing")
			}
			w.addrs[i] = append(w.addrs[i], netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return w, nil
}

// since is when something became as it is.
func since() time.Time { return time.Now().UTC() }
