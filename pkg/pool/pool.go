// Package pool is the address arithmetic of leases: which address of a prefix
// a new holder gets, and which ones rest before they are given again.
//
// It owns the choice and the counting, in memory. It leaves storage, clocks and
// locking to its caller: a Pool is not safe for concurrent use. Its memory
// grows with the addresses used and resting, never with the size of the prefix.
package pool

import (
	"container/heap"
	"math"
	"net/netip"
	"time"

	"vpnd/pkg/fault"
)

// rested is how many addresses whose quarantine is over may wait while
// addresses never used are given out instead. Beyond that, or beyond as many
// as are in use, they are used again first: else the memory of a wide pool
// would grow with every address it ever gave.
const rested = 1024

// Pool is one prefix and who holds what in it. Make it with New.
type Pool struct {
	prefix   netip.Prefix
	gateway  netip.Addr
	last     netip.Addr // highest address that can be given
	reserved map[netip.Addr]struct{}
	capacity uint64

	fresh   netip.Addr // no address from here on was ever given, unless it is in used or resting
	used    map[netip.Addr]struct{}
	resting map[netip.Addr]*rest // given back, whether its quarantine is over or not
	waiting quarantine           // those whose quarantine is not known to be over
	over    []*rest              // those whose quarantine is over, longest rested first
	holes   int                  // elements of over that were claimed since
}

// Stats is how full a pool is. Used, Quarantined and Free add up to Capacity,
// except that in IPv6 prefixes wider than /64 Capacity and Free are
// math.MaxUint64.
type Stats struct {
	Capacity    uint64 // addresses that can be held at all
	Used        uint64 // held
	Quarantined uint64 // given back a short time ago
	Free        uint64 // Take can give them now
}

// New makes an empty pool: IPv4 from /30 to /8, IPv6 from /126 to /48. The
// network address, the gateway (first host address) and, in IPv4, the broadcast
// address are never given, nor are the reserved ones. What cannot be a pool is
// fault.Invalid, with the reason.
func New(prefix netip.Prefix, reserved ...netip.Addr) (*Pool, error) {
	if err := usable(prefix); err != nil {
		return nil, err
	}
	p := &Pool{
		prefix:   prefix,
		gateway:  prefix.Addr().Next(),
		last:     Last(prefix),
		reserved: map[netip.Addr]struct{}{},
		used:     map[netip.Addr]struct{}{},
		resting:  map[netip.Addr]*rest{},
	}
	p.fresh = p.gateway.Next()
	for _, a := range reserved {
		if !prefix.Contains(a) {
			return nil, fault.New(fault.Invalid, "reserved address %s is not in %s", a, prefix)
		}
		if p.givable(a) {
			p.reserved[a] = struct{}{}
		}
	}
	if p.capacity = capacity(prefix); p.capacity < math.MaxUint64 {
		p.capacity -= uint64(len(p.reserved))
	}
	return p, nil
}

// Prefix is what New was given.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Gateway is the first host address: the server's own.
func (p *Pool) Gateway() netip.Addr { return p.gateway }

// Capacity is how many addresses can be held, at most math.MaxUint64.
func (p *Pool) Capacity() uint64 { return p.capacity }

// Take gives an address nobody holds: the lowest never used, or else the one
// that has rested longest after its quarantine. When there is none it fails
// with fault.Exhausted.
func (p *Pool) Take(now time.Time) (netip.Addr, error) {
	p.endQuarantines(now)
	if len(p.over)-p.holes <= max(rested, len(p.used)) {
		if a, ok := p.takeFresh(); ok {
			return a, nil
		}
	}
	if a, ok := p.takeRested(); ok {
		return a, nil
	}
	return netip.Addr{}, p.exhausted(now)
}

// takeFresh walks over addresses that were claimed ahead of it, each once in
// the life of the pool.
func (p *Pool) takeFresh() (netip.Addr, bool) {
	for p.fresh.IsValid() && !p.last.Less(p.fresh) {
		a := p.fresh
		p.fresh = a.Next()
		if p.untouched(a) {
			p.used[a] = struct{}{}
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (p *Pool) untouched(a netip.Addr) bool {
	_, isReserved := p.reserved[a]
	_, isUsed := p.used[a]
	_, isResting := p.resting[a]
	return !isReserved && !isUsed && !isResting
}

func (p *Pool) takeRested() (netip.Addr, bool) {
	for len(p.over) > 0 {
		r := p.over[0]
		p.over[0] = nil
		p.over = p.over[1:]
		if r.gone {
			p.holes--
			continue
		}
		delete(p.resting, r.addr)
		p.used[r.addr] = struct{}{}
		return r.addr, true
	}
	return netip.Addr{}, false
}

// Claim holds one given address: a lease read from storage, or one that a
// holder should get back although it rests. An address that is held or
// reserved is fault.Conflict; one outside the prefix is fault.Invalid.
func (p *Pool) Claim(a netip.Addr) error {
	if !p.prefix.Contains(a) {
		return fault.New(fault.Invalid, "address %s is not in %s", a, p.prefix)
	}
	if _, isReserved := p.reserved[a]; isReserved || !p.givable(a) {
		return fault.New(fault.Conflict, "address %s is reserved in %s", a, p.prefix).WithReason("reserved")
	}
	if _, isUsed := p.used[a]; isUsed {
		return fault.New(fault.Conflict, "address %s is held already", a).WithReason("held")
	}
	if r, isResting := p.resting[a]; isResting {
		p.wake(r)
	}
	p.used[a] = struct{}{}
	return nil
}

// Release gives a back; until then nobody gets it from Take. Releasing what is
// not held does nothing.
func (p *Pool) Release(a netip.Addr, until time.Time) {
	if _, isUsed := p.used[a]; !isUsed {
		return
	}
	delete(p.used, a)
	r := &rest{addr: a, until: until}
	p.resting[a] = r
	heap.Push(&p.waiting, r)
}

// Stats counts. Like Take it must be told the time.
func (p *Pool) Stats(now time.Time) Stats {
	p.endQuarantines(now)
	s := Stats{Capacity: p.capacity, Used: uint64(len(p.used)), Quarantined: uint64(len(p.waiting))}
	if s.Free = s.Capacity; s.Capacity < math.MaxUint64 {
		s.Free -= s.Used + s.Quarantined
	}
	return s
}

func (p *Pool) exhausted(now time.Time) error {
	e := fault.New(fault.Exhausted, "no free address in %s: %d in use, %d in quarantine", p.prefix, len(p.used), len(p.waiting)).
		WithReason("pool_exhausted")
	if len(p.waiting) > 0 {
		e = e.WithRetryAfter(p.waiting[0].until.Sub(now))
	}
	if wider := p.prefix.Bits() - 1; wider >= widest(p.prefix.Addr()) {
		return e.WithHint("configure a wider prefix (a /%d holds twice as many), or release addresses that nobody uses", wider)
	}
	return e.WithHint("release addresses that nobody uses")
}
