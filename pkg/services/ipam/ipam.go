// Package ipam is the service that owns addresses: an IPv4 and an IPv6 address
// in each lane for every device, from its first connect until it is deleted,
// then a rest in quarantine.
//
// It owns ipam.db and the promise that no address is ever held by two devices,
// whatever crashes when: a lease is durable before anybody hears of it, and the
// database's unique constraints stand behind the allocator in memory. It leaves
// who may have a lease to the sessions service. An Allocator may be used
// concurrently.
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
)

// slots are the four addresses of a lease, in the order of its columns.
const slots = 4

var slotNames = [slots]struct{ lane, family string }{
	{"vpn", "ipv4"}, {"vpn", "ipv6"}, {"tor", "ipv4"}, {"tor", "ipv6"},
}

// Config says which pools there are.
type Config struct {
	Prefixes   [slots]netip.Prefix
	Quarantine time.Duration
}

// ConfigFrom picks what ipam needs out of the file.
func ConfigFrom(c config.Config) Config {
	return Config{
		Prefixes:   [slots]netip.Prefix{c.Lanes.VPN.IPv4, c.Lanes.VPN.IPv6, c.Lanes.Tor.IPv4, c.Lanes.Tor.IPv6},
		Quarantine: c.IPAM.Quarantine.D(),
	}
}

// Allocator hands out leases.
type Allocator struct {
	cfg   Config
	db    *database
	log   *slog.Logger
	now   func() time.Time
	pools [slots]*pool.Pool

	mu     sync.Mutex
	leases map[id.Device]*entry
}

// entry is a device's lease, or the wait for it: done closes when it is
// settled, and then err tells whether the lease exists.
type entry struct {
	lease     api.Lease
	addrs     [slots]netip.Addr
	done      chan struct{}
	err       error
	releasing bool
}

// Deps are what an Allocator works with.
type Deps struct {
	DB  *database
	Log *slog.Logger
	Now func() time.Time
}

// New prepares the pools. It does no I/O; call Load before anything else.
func New(cfg Config, deps Deps) (*Allocator, error) {
	a := &Allocator{cfg: cfg, db: deps.DB, log: deps.Log, now: deps.Now, leases: map[id.Device]*entry{}}
	if a.now == nil {
		a.now = time.Now
	}
	for i, p := range cfg.Prefixes {
		var err error
		if a.pools[i], err = pool.New(p); err != nil {
			return nil, fmt.Errorf("pool of lane %s %s: %w", slotNames[i].lane, slotNames[i].family, err)
		}
	}
	return a, nil
}

// Load reads what is leased and what rests. Leases that no longer fit the
// configured prefixes are dropped: their devices get new addresses when they
// connect again.
func (a *Allocator) Load(ctx context.Context) error {
	leases, resting, err := a.db.load(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var misfits []id.Device
	for _, l := range leases {
		if !a.fits(l.addrs) {
			misfits = append(misfits, l.lease.Device)
			continue
		}
		for i, addr := range l.addrs {
			if err := a.pools[i].Claim(addr); err != nil {
				return fmt.Errorf("lease of %s: %w", l.lease.Device, err)
			}
		}
		l.done = closedChan
		a.leases[l.lease.Device] = l
	}
	for _, r := range resting {
		for i, p := range a.cfg.Prefixes {
			if p.Contains(r.addr) && a.pools[i].Claim(r.addr) == nil {
				a.pools[i].Release(r.addr, r.until)
			}
		}
	}
	if len(misfits) > 0 {
		a.log.Warn("leases_outside_pools_dropped", "count", len(misfits))
		return a.db.drop(ctx, misfits)
	}
	return nil
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (a *Allocator) fits(addrs [slots]netip.Addr) bool {
	for i, p := range a.cfg.Prefixes {
		if !p.Contains(addrs[i]) {
			return false
		}
	}
	return true
}

// Acquire gives the device's lease and makes it on first use. It returns after
// the lease is durable.
func (a *Allocator) Acquire(ctx context.Context, device id.Device, user id.User) (api.Lease, error) {
	for {
		a.mu.Lock()
		e, ok := a.leases[device]
		if !ok {
			e, err := a.reserve(device, user)
			a.mu.Unlock()
			if err != nil {
				return api.Lease{}, err
			}
			return a.commit(ctx, e)
		}
		a.mu.Unlock()
		select {
		case <-e.done:
		case <-ctx.Done():
			return api.Lease{}, ctx.Err()
		}
		a.mu.Lock()
		settled := a.leases[device] == e && !e.releasing
		a.mu.Unlock()
		if e.err == nil && settled {
			if e.lease.User != user {
				return api.Lease{}, fault.New(fault.Conflict, "device %s holds a lease of another user", device)
			}
			return e.lease, nil
		}
		if e.err != nil {
			return api.Lease{}, e.err
		}
	}
}

// reserve takes four addresses in memory. The caller holds mu.
func (a *Allocator) reserve(device id.Device, user id.User) (*entry, error) {
	now := a.now()
	e := &entry{done: make(chan struct{})}
	for i, p := range a.pools {
		addr, err := p.Take(now)
		if err != nil {
			for j := range i {
				a.pools[j].Release(e.addrs[j], now)
			}
			if errors.Is(err, fault.Exhausted) {
				return nil, fault.Wrap(err, fault.Exhausted, "no free %s address in lane %s (%s)",
					slotNames[i].family, slotNames[i].lane, a.cfg.Prefixes[i]).WithReason("pool_exhausted").
					WithHint("delete devices that are not used, or set a wider lanes.%s.%s in vpnd.toml", slotNames[i].lane, slotNames[i].family)
			}
			return nil, err
		}
		e.addrs[i] = addr
	}
	e.lease = api.Lease{
		Device: device, User: user, CreatedAt: now.UTC().Truncate(time.Microsecond),
		VPN: api.Addresses{IPv4: e.addrs[0], IPv6: e.addrs[1]},
		Tor: api.Addresses{IPv4: e.addrs[2], IPv6: e.addrs[3]},
	}
	a.leases[device] = e
	return e, nil
}

// commit makes a reserved lease durable, or takes it back.
func (a *Allocator) commit(ctx context.Context, e *entry) (api.Lease, error) {
	err := a.db.insert(ctx, e)
	a.mu.Lock()
	if err != nil {
		e.err = err
		delete(a.leases, e.lease.Device)
		now := a.now()
		for i, p := range a.pools {
			p.Release(e.addrs[i], now)
		}
	}
	a.mu.Unlock()
	close(e.done)
	return e.lease, err
}

// Release gives a device's addresses back, to rest in quarantine. It returns
// after that is durable; a device without a lease is fine.
func (a *Allocator) Release(ctx context.Context, device id.Device) error {
	for {
		a.mu.Lock()
		e, ok := a.leases[device]
		if !ok {
			a.mu.Unlock()
			return nil
		}
		if !settled(e) {
			a.mu.Unlock()
			select {
			case <-e.done:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		done := make(chan struct{})
		releasing := &entry{lease: e.lease, addrs: e.addrs, done: done, releasing: true}
		a.leases[device] = releasing
		a.mu.Unlock()

		until := a.now().Add(a.cfg.Quarantine)
		err := a.db.release(ctx, e, until)
		a.mu.Lock()
		if err != nil {
			a.leases[device] = e
		} else {
			delete(a.leases, device)
			for i, p := range a.pools {
				p.Release(e.addrs[i], until)
			}
		}
		a.mu.Unlock()
		close(done)
		return err
	}
}

func settled(e *entry) bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// Status tells how full the pools are.
func (a *Allocator) Status() api.StatusReply {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	out := api.StatusReply{Quarantine: int(a.cfg.Quarantine / time.Second)}
	for i, p := range a.pools {
		s := p.Stats(now)
		out.Pools = append(out.Pools, api.PoolStatus{
			Lane: slotNames[i].lane, Family: slotNames[i].family, Prefix: a.cfg.Prefixes[i], Gateway: p.Gateway(),
			Capacity: s.Capacity, Used: s.Used, Quarantined: s.Quarantined, Free: s.Free,
		})
	}
	return out
}
