package tor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// ownerFor is how long an answer is believed. An address rests for longer than
// that between two devices (ipam.quarantine).
const ownerFor = 20 * time.Second

// ownersMax bounds the memory; all answers are asked for again beyond it.
const ownersMax = 20_000

// owners remembers whose the lane's addresses are.
type owners struct {
	lane netip.Prefix // IPv4
	ask  func(context.Context, netip.Addr) (*sessions.Owner, error)

	mu    sync.Mutex
	known map[netip.Addr]ownerAnswer
}

type ownerAnswer struct {
	owner *sessions.Owner
	until time.Time
}

// of tells whose the address is.
func (o *owners) of(ctx context.Context, device netip.Addr) (*sessions.Owner, error) {
	o.mu.Lock()
	a, ok := o.known[device]
	o.mu.Unlock()
	if ok && time.Now().Before(a.until) {
		return a.owner, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	owner, err := o.ask(ctx, device)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil || len(o.known) >= ownersMax {
		o.known = map[netip.Addr]ownerAnswer{}
	}
	o.known[device] = ownerAnswer{owner, time.Now().Add(ownerFor)}
	return owner, nil
}

// loopback is the loopback address that stands for a device when DNS over TCP
// is asked for it: the low 24 bits of its IPv4 address, which no other has.
func (o *owners) loopback(ctx context.Context, device netip.Addr) (netip.Addr, error) {
	device = device.Unmap()
	if !device.Is4() {
		owner, err := o.of(ctx, device)
		if err != nil {
			return netip.Addr{}, err
		}
		i := slices.IndexFunc(owner.Addresses, netip.Addr.Is4)
		if i < 0 {
			return netip.Addr{}, fault.New(fault.NotFound, "%s has no IPv4 address in the lane", device)
		}
		device = owner.Addresses[i]
	}
	b := device.AsSlice()
	b = b[len(b)-3:]
	return netip.AddrFrom4([4]byte{127, b[0], b[1], b[2]}), nil
}

// device is the device behind a source that tor saw.
func (o *owners) device(source netip.Addr) netip.Addr {
	if !source.Is4() || !source.IsLoopback() {
		return source
	}
	b := source.As4()
	return netip.AddrFrom4([4]byte{o.lane.Addr().As4()[0], b[1], b[2], b[3]})
}
