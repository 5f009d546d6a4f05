package lanes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
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

// Config says what the lanes are.
type Config struct {
	Lanes        config.Lanes
	Tor          config.Tor // its ports
	ControlPort  uint16
	StateDir     string        // interface keys, endpoints
	RunDir       string        // sockets of wireguard-go
	Daemon       []string      // argv that ends up in RunDaemon
	CompareEvery time.Duration // how often peers are compared with the interfaces; zero is 30 s
}

// Lanes owns both lanes.
type Lanes struct {
	cfg     Config
	log     *slog.Logger
	publish func(events.Event)
	epoch   string
	wall    *nft.Firewall
	lanes   [2]*lane // vpn, tor
	book    *wgdev.EndpointBook
	guarded chan struct{} // closed when the rules are in place for the first time

	flipping sync.Mutex    // one change of the rules' state at a time; it comes before mu
	rewall   chan struct{} // asks for a look at the rules now

	reading  sync.Mutex    // one reading of freshen at a time
	readings atomic.Uint64 // begun by freshen
	read     uint64        // the latest of them; guarded by reading

	// changing is held shared by single changes and alone by whoever equalizes
	// all peers, who would otherwise undo a change half made. It comes before mu.
	changing sync.RWMutex

	mu      sync.Mutex
	synced  bool // a Sync came since start: want is complete
	want    map[id.Device]wanted
	byKey   map[wgdev.Key]id.Device
	last    map[id.Device]api.PeerStats // as of the latest reading
	wallErr error
	tor     torLease
	vpn     vpnSwitch
	canary  wgdev.Key // of the leak test's device; zero when it has no peer
	repairs repairs
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

// New prepares both lanes. It does no I/O; Run brings them up. log and publish
// may be nil.
func New(cfg Config, log *slog.Logger, publish func(events.Event)) (*Lanes, error) {
	wall, err := nft.New(nft.Config{
		VPN: wallLane(cfg.Lanes.VPN), Tor: wallLane(cfg.Lanes.Tor), ControlPort: cfg.ControlPort,
		BlockedPorts: append([]uint16{}, cfg.Lanes.BlockedPorts...), PeerToPeer: cfg.Lanes.PeerToPeer,
		TransPort: cfg.Tor.TransPort, DNSPort: cfg.Tor.DNSPort, PagePort: cfg.Tor.PagePort,
	})
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if publish == nil {
		publish = func(events.Event) {}
	}
	if cfg.CompareEvery == 0 {
		cfg.CompareEvery = compareEvery
	}
	l := &Lanes{
		cfg: cfg, log: log, publish: publish, epoch: rpc.NewRequestID(), wall: wall, book: wgdev.NewEndpointBook(),
		guarded: make(chan struct{}), rewall: make(chan struct{}, 1),
		want: map[id.Device]wanted{}, byKey: map[wgdev.Key]id.Device{}, last: map[id.Device]api.PeerStats{},
		wallErr: errors.New("not in place yet"), tor: torLease{reason: whyStarted},
	}
	l.lanes[0] = newLane(api.VPN, cfg.Lanes.VPN, cfg)
	l.lanes[1] = newLane(api.Tor, cfg.Lanes.Tor, cfg)
	return l, nil
}

func wallLane(c config.Lane) nft.Lane {
	canary := canaryAddrs(c)
	return nft.Lane{
		Interface: c.Interface, Prefix4: c.IPv4, Prefix6: c.IPv6,
		Gateway4: c.IPv4.Addr().Next(), Gateway6: c.IPv6.Addr().Next(), Canary4: canary[0], Canary6: canary[1],
	}
}

func (l *Lanes) bookPath() string { return filepath.Join(l.cfg.StateDir, "endpoints.json") }

// undoWait bounds the taking back of half a peer.
const undoWait = 5 * time.Second

// Put programs a peer on both interfaces and returns when both have it.
func (l *Lanes) Put(ctx context.Context, p api.Peer) error {
	w, err := parse(p)
	if err != nil {
		return err
	}
	l.changing.RLock()
	defer l.changing.RUnlock()
	if l.isCanary(w.key) {
		return fault.InvalidField("body.public_key", "is that of the leak test's device")
	}
	var failed [2]error
	err = l.bothLanes(func(i int) error {
		failed[i] = l.lanes[i].upsert(ctx, w.peer(i))
		return failed[i]
	})
	if err != nil {
		l.takeBack(ctx, w, failed)
		return err
	}
	l.log.InfoContext(ctx, "peer.added", "device_id", w.device, "request_id", rpc.RequestID(ctx))
	if replaced := l.note(w); len(replaced) > 0 {
		l.book.Forget(replaced...)
		return l.bothLanes(func(i int) error { return l.lanes[i].remove(ctx, replaced...) })
	}
	return nil
}

// takeBack removes what got through of a failed Put: half a peer is none. One
// that was there before stays; the next comparison completes it.
func (l *Lanes) takeBack(ctx context.Context, w wanted, failed [2]error) {
	l.mu.Lock()
	_, known := l.byKey[w.key]
	l.mu.Unlock()
	if known {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWait)
	defer cancel()
	err := l.bothLanes(func(i int) error {
		if fault.ReasonOf(failed[i]) == laneDown {
			return nil // and has no peers
		}
		return l.lanes[i].remove(ctx, w.key)
	})
	if err != nil {
		l.log.Warn("peer.left_behind", "device_id", w.device, "err", err, "request_id", rpc.RequestID(ctx))
	}
}

// note makes a peer wanted, and gives the keys that its device had before.
func (l *Lanes) note(w wanted) (replaced []wgdev.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.byKey[w.key]; ok && other != w.device { // the key has changed hands
		delete(l.want, other)
		delete(l.last, other)
	}
	if old, ok := l.want[w.device]; ok && old.key != w.key {
		replaced = append(replaced, old.key)
		delete(l.byKey, old.key)
		delete(l.last, w.device)
	}
	l.want[w.device], l.byKey[w.key] = w, w.device
	return replaced
}

// Remove takes peers off both interfaces, returns when they are gone, and
// gives their last counters. Peers are not wanted any more whether it succeeds
// or not.
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
	last, gone := l.unwant(removals, keys)
	if err := l.bothLanes(func(i int) error { return l.lanes[i].remove(ctx, gone...) }); err != nil {
		return nil, err
	}
	for i, r := range removals {
		if slices.Contains(gone, keys[i]) {
			l.log.InfoContext(ctx, "peer.removed", "device_id", r.Device, "request_id", rpc.RequestID(ctx))
		}
	}
	l.book.Forget(gone...)
	return last, nil
}

// unwant forgets peers, and gives their last counters and the keys to remove:
// not those that belong to other devices by now.
func (l *Lanes) unwant(removals []api.Removal, keys []wgdev.Key) (last []api.PeerStats, remove []wgdev.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range removals {
		owner, known := l.byKey[keys[i]]
		if known && owner != r.Device || keys[i] == l.canary && !l.canary.IsZero() {
			continue
		}
		remove = append(remove, keys[i])
		if !known {
			continue
		}
		if st, ok := l.last[r.Device]; ok {
			last = append(last, st)
		}
		delete(l.want, r.Device)
		delete(l.byKey, keys[i])
		delete(l.last, r.Device)
	}
	return last, remove
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
		if other, ok := byKey[w.key]; ok {
			return api.Synced{}, fault.InvalidField(fmt.Sprintf("body.peers[%d].public_key", i), "is that of device %s too", other)
		}
		if _, ok := want[w.device]; ok {
			return api.Synced{}, fault.InvalidField(fmt.Sprintf("body.peers[%d].device_id", i), "%s is there twice", w.device)
		}
		want[w.device], byKey[w.key] = w, w.device
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	if device, ok := byKey[l.canaryKey()]; ok {
		l.log.Warn("canary.key_taken", "device_id", device)
		l.wantCanary(wgdev.Key{}) // the device keeps it
	}
	var done [2]difference
	err := l.bothLanes(func(i int) (err error) {
		done[i], err = l.lanes[i].equalize(ctx, want, i, l.book)
		return err
	})
	if err != nil {
		return api.Synced{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range l.last {
		if want[d].key != l.want[d].key {
			delete(l.last, d)
		}
	}
	l.want, l.byKey, l.synced = want, byKey, true
	return api.Synced{
		Epoch: l.epoch, Added: max(done[0].added, done[1].added),
		Changed: max(done[0].changed, done[1].changed), Removed: max(done[0].removed, done[1].removed),
	}, nil
}

// Epoch tells which run of this service it is, and whether a Sync has come.
func (l *Lanes) Epoch() api.EpochReply {
	l.mu.Lock()
	defer l.mu.Unlock()
	return api.EpochReply{Epoch: l.epoch, Synced: l.synced}
}

func (l *Lanes) bothLanes(do func(i int) error) error {
	tor := make(chan error, 1)
	go func() { tor <- do(1) }()
	vpn := do(0)
	return errors.Join(vpn, <-tor)
}

func parse(p api.Peer) (wanted, error) {
	w := wanted{device: p.Device}
	if p.Device == "" {
		return w, fault.InvalidField("body.device_id", "is missing")
	}
	var err error
	if w.key, err = wgdev.ParsePublicKey(p.PublicKey); err != nil {
		return w, fault.InvalidField("body.public_key", "%v", err)
	}
	if w.psk, err = wgdev.ParsePresharedKey(p.PresharedKey); err != nil {
		return w, fault.InvalidField("body.preshared_key", "is not a preshared key")
	}
	for i, addrs := range [2][]netip.Addr{p.VPN, p.Tor} {
		for j, a := range addrs {
			if !a.IsValid() {
				return w, fault.InvalidField(fmt.Sprintf("body.%s[%d]", []api.Name{api.VPN, api.Tor}[i], j), "is not an address")
			}
			w.addrs[i] = append(w.addrs[i], netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return w, nil
}
