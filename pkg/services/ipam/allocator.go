package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/ipam"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/pool"
	"vpnd/pkg/store"
)

// slots are the four addresses of a lease, in the order of its columns.
const slots = 4

var slotNames = [slots]struct{ lane, family string }{
	{"vpn", "ipv4"}, {"vpn", "ipv6"}, {"tor", "ipv4"}, {"tor", "ipv6"},
}

type addresses [slots]netip.Addr

func addressesOf(l api.Lease) addresses {
	return addresses{l.VPN.IPv4, l.VPN.IPv6, l.Tor.IPv4, l.Tor.IPv6}
}

func (a addresses) into(l *api.Lease) {
	l.VPN = api.Addresses{IPv4: a[0], IPv6: a[1]}
	l.Tor = api.Addresses{IPv4: a[2], IPv6: a[3]}
}

// droppedRest is the shortest rest of addresses whose leases end because the
// prefixes changed: until sessions has found out, their devices use them.
const droppedRest = 10 * time.Minute

// Config says which pools there are.
type Config struct {
	Prefixes   [slots]netip.Prefix // vpn IPv4, vpn IPv6, tor IPv4, tor IPv6
	Quarantine time.Duration
}

// ConfigFrom picks what ipam needs out of the file.
func ConfigFrom(c config.Config) Config {
	return Config{
		Prefixes:   [slots]netip.Prefix{c.Lanes.VPN.IPv4, c.Lanes.VPN.IPv6, c.Lanes.Tor.IPv4, c.Lanes.Tor.IPv6},
		Quarantine: c.IPAM.Quarantine.D(),
	}
}

// Deps are what an Allocator works with. DB is required.
type Deps struct {
	DB  *store.DB // opened with Migrations
	Log *slog.Logger
	Now func() time.Time
}

// Allocator hands out leases.
type Allocator struct {
	cfg Config
	db  *database
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	pools  [slots]*pool.Pool
	leases map[id.Device]api.Lease // durable ones
	// busy are the devices whose lease is being written or ended; the channel
	// is closed when that is settled.
	busy map[id.Device]chan struct{}
}

// New prepares the pools. Load must run before anything else.
func New(cfg Config, deps Deps) (*Allocator, error) {
	a := &Allocator{
		cfg: cfg, db: &database{deps.DB}, log: deps.Log, now: deps.Now,
		leases: map[id.Device]api.Lease{}, busy: map[id.Device]chan struct{}{},
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	for i, p := range cfg.Prefixes {
		var err error
		// The highest address is that of the leak test's device.
		if a.pools[i], err = pool.New(p, pool.Last(p)); err != nil {
			return nil, fmt.Errorf("pool of lane %s %s: %w", slotNames[i].lane, slotNames[i].family, err)
		}
	}
	return a, nil
}

// Load reads what is leased and what rests. Leases that do not fit the
// configured prefixes any more are ended: their devices get new addresses when
// they connect again.
func (a *Allocator) Load(ctx context.Context) error {
	now := a.now()
	// No rest is longer than configured, so that a clock that was once wrong
	// takes no address away for ever.
	if err := a.db.shorten(ctx, now.Add(max(a.cfg.Quarantine, droppedRest))); err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	leases, rest, err := a.db.load(ctx)
	if err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var misfits []api.Lease
	for _, l := range leases {
		if a.claim(addressesOf(l)) {
			a.leases[l.Device] = l
		} else {
			misfits = append(misfits, l)
		}
	}
	if len(misfits) > 0 {
		until := now.Add(max(a.cfg.Quarantine, droppedRest))
		if err := a.db.release(ctx, until, misfits...); err != nil {
			return fmt.Errorf("end leases outside the prefixes: %w", err)
		}
		a.log.Warn("leases.ended", "reason", "outside the configured prefixes", "count", len(misfits))
		for _, l := range misfits {
			for _, addr := range addressesOf(l) {
				rest = append(rest, resting{addr, until})
			}
		}
	}
	for _, r := range rest {
		for _, p := range a.pools {
			if p.Prefix().Contains(r.addr) && p.Claim(r.addr) == nil { // else it is the gateway's by now
				p.Release(r.addr, r.until)
			}
		}
	}
	return nil
}

// claim takes the addresses of a lease read from disk, all or none.
func (a *Allocator) claim(addrs addresses) bool {
	for i, p := range a.pools {
		if p.Claim(addrs[i]) != nil {
			for j := range i {
				a.pools[j].Release(addrs[j], time.Time{})
			}
			return false
		}
	}
	return true
}

// Acquire gives the device's lease and makes it on first use. It returns after
// the lease is durable.
func (a *Allocator) Acquire(ctx context.Context, device id.Device, user id.User) (api.Lease, error) {
	if err := a.lockIdle(ctx, device); err != nil {
		return api.Lease{}, err
	}
	if l, ok := a.leases[device]; ok {
		a.mu.Unlock()
		if l.User != user {
			return api.Lease{}, fault.New(fault.Conflict, "device %s holds a lease of another user", device).WithReason("lease_owner")
		}
		return l, nil
	}
	now := a.now()
	addrs, err := a.take(now)
	if err != nil {
		a.mu.Unlock()
		return api.Lease{}, err
	}
	settle := a.begin(device)
	a.mu.Unlock()

	l := api.Lease{Device: device, User: user, CreatedAt: now.UTC().Truncate(time.Microsecond)}
	addrs.into(&l)
	err = a.db.insert(ctx, l)

	a.mu.Lock()
	defer a.mu.Unlock()
	defer settle()
	if err != nil {
		a.giveBack(addrs, now)
		return api.Lease{}, fmt.Errorf("record lease: %w", err)
	}
	a.leases[device] = l
	return l, nil
}

// Release gives a device's addresses back, to rest in quarantine. It returns
// after that is durable; a device without a lease is fine.
func (a *Allocator) Release(ctx context.Context, device id.Device) error {
	if err := a.lockIdle(ctx, device); err != nil {
		return err
	}
	l, ok := a.leases[device]
	if !ok {
		a.mu.Unlock()
		return nil
	}
	settle := a.begin(device)
	a.mu.Unlock()

	until := a.now().Add(a.cfg.Quarantine)
	err := a.db.release(ctx, until, l)

	a.mu.Lock()
	defer a.mu.Unlock()
	defer settle()
	if err != nil {
		return fmt.Errorf("record release: %w", err)
	}
	delete(a.leases, device)
	a.giveBack(addressesOf(l), until)
	return nil
}

// lockIdle takes mu at a moment when nobody changes the device's lease. With an
// error mu is not held.
func (a *Allocator) lockIdle(ctx context.Context, device id.Device) error {
	for {
		a.mu.Lock()
		settled, ok := a.busy[device]
		if !ok {
			return nil
		}
		a.mu.Unlock()
		select {
		case <-settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin makes others wait who want to change the device's lease, until the
// function it gives is called. mu is held at both times.
func (a *Allocator) begin(device id.Device) (settle func()) {
	settled := make(chan struct{})
	a.busy[device] = settled
	return func() {
		delete(a.busy, device)
		close(settled)
	}
}

// take gives an address of every pool, or none of any. The caller holds mu.
func (a *Allocator) take(now time.Time) (addrs addresses, err error) {
	for i, p := range a.pools {
		if addrs[i], err = p.Take(now); err != nil {
			for j := range i {
				a.pools[j].Release(addrs[j], now)
			}
			return addresses{}, exhausted(i, err)
		}
	}
	return addrs, nil
}

// giveBack is the reverse of take. The caller holds mu.
func (a *Allocator) giveBack(addrs addresses, until time.Time) {
	for i, p := range a.pools {
		p.Release(addrs[i], until)
	}
}

// exhausted says which pool is full and where its size is set.
func exhausted(slot int, err error) error {
	if !errors.Is(err, fault.Exhausted) {
		return err
	}
	n, f := slotNames[slot], fault.From(err)
	return fault.Wrap(err, fault.Exhausted, "lane %s has no free %s address: %s", n.lane, n.family, f.Message).
		WithReason("pool_exhausted").WithRetryAfter(f.RetryAfter).
		WithHint("set a wider prefix with the key %s under [lanes.%s] in vpnd.toml and run 'vpnctl service reload', or delete devices that nobody uses", n.family, n.lane)
}

// Status tells how full the pools are.
func (a *Allocator) Status() api.StatusReply {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := api.StatusReply{Quarantine: int(a.cfg.Quarantine / time.Second)}
	for i, p := range a.pools {
		s := p.Stats(now)
		out.Pools = append(out.Pools, api.PoolStatus{
			Lane: slotNames[i].lane, Family: slotNames[i].family, Prefix: p.Prefix(), Gateway: p.Gateway(),
			Capacity: s.Capacity, Used: s.Used, Quarantined: s.Quarantined, Free: s.Free,
		})
	}
	return out
}

// List pages leases, oldest first; only the user's, if one is given. next is
// what to give as after for the next page, and 0 on the last.
func (a *Allocator) List(ctx context.Context, user id.User, after int64, limit int) (items []api.Lease, total int, next int64, err error) {
	return a.db.list(ctx, user, after, limit)
}

// Sweep forgets on disk the rests that have ended.
func (a *Allocator) Sweep(ctx context.Context) error { return a.db.sweep(ctx, a.now()) }
