package lanes

import (
	"context"
	"fmt"
	"net/netip"

	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/pool"
	"vpnd/pkg/wgdev"
)

// canaryAddrs are the addresses of the leak test's device in a lane, IPv4 first.
// ipam never leases them.
func canaryAddrs(c config.Lane) []netip.Addr {
	return []netip.Addr{pool.Last(c.IPv4), pool.Last(c.IPv6)}
}

// PutCanary gives the leak test's device a peer on both interfaces, replacing the
// former one; without a key it takes the peer away. It is kept in memory only,
// and is no device's: Sync leaves it alone and Stats does not know it.
func (l *Lanes) PutCanary(ctx context.Context, publicKey string) error {
	var key wgdev.Key
	if publicKey != "" {
		var err error
		if key, err = wgdev.ParsePublicKey(publicKey); err != nil {
			return fault.InvalidField("body.public_key", "%v", err)
		}
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	l.mu.Lock()
	device, taken := l.byKey[key]
	former := l.canary
	l.mu.Unlock()
	if taken {
		return fault.New(fault.Conflict, "the key is that of device %s", device).WithHint("use another key for the leak test")
	}
	l.wantCanary(key) // the next comparison brings it should this fail
	if former != key && !former.IsZero() {
		l.book.Forget(former)
		if err := l.bothLanes(func(i int) error { return l.lanes[i].remove(ctx, former) }); err != nil {
			return fmt.Errorf("remove the leak test's former peer: %w", err)
		}
	}
	return l.bothLanes(func(i int) error {
		p, ok := l.lanes[i].canaryPeer()
		if !ok {
			return nil
		}
		return l.lanes[i].upsert(ctx, p)
	})
}

// Canary counts the packets of the leak test's device, as the kernel has them now.
func (l *Lanes) Canary(ctx context.Context) (api.CanaryCounts, error) {
	select {
	case <-l.guarded:
	case <-ctx.Done():
		return api.CanaryCounts{}, ctx.Err()
	}
	n, err := l.wall.Canary(ctx)
	if err != nil {
		return api.CanaryCounts{}, err
	}
	out := api.CanaryCounts{
		Left:    map[api.Name]uint64{api.VPN: n.LeftVPN, api.Tor: n.LeftTor},
		Reached: map[api.Name]uint64{api.VPN: n.ReachedVPN, api.Tor: n.ReachedTor},
		Lanes:   l.List(),
		Addrs:   map[api.Name][]netip.Addr{},
	}
	for _, ln := range l.lanes {
		out.Addrs[ln.name] = canaryAddrs(ln.cfg)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out.Repairs, out.Repaired = l.repairs.count, l.repairs.last
	return out, nil
}

func (l *Lanes) canaryKey() wgdev.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.canary
}

// isCanary tells whether a key is that of the leak test's device.
func (l *Lanes) isCanary(k wgdev.Key) bool { return !k.IsZero() && k == l.canaryKey() }

// wantCanary sets which key the device has; zero means none.
func (l *Lanes) wantCanary(k wgdev.Key) {
	l.mu.Lock()
	l.canary = k
	l.mu.Unlock()
	for _, ln := range l.lanes {
		ln.mu.Lock()
		ln.canary = k
		ln.mu.Unlock()
	}
}

// canaryPeer is the leak test's device as this interface should have it.
func (l *lane) canaryPeer() (p wgdev.Peer, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p.PublicKey = l.canary
	for _, a := range canaryAddrs(l.cfg) {
		p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(a, a.BitLen()))
	}
	return p, !l.canary.IsZero()
}
