package pool

import (
	"math"
	"net/netip"

	"vpnd/pkg/fault"
)

// unusable lists ranges whose addresses no host may have on a tunnel
// interface.
func unusable() []struct{ prefix, why string } {
	return []struct{ prefix, why string }{
		{"0.0.0.0/8", `"this network" (RFC 1122)`},
		{"127.0.0.0/8", "loopback"},
		{"169.254.0.0/16", "link-local"},
		{"224.0.0.0/4", "multicast"},
		{"240.0.0.0/4", "reserved (RFC 1112)"},
		{"::/8", "reserved (RFC 4291): loopback and IPv4-mapped addresses"},
		{"fe80::/10", "link-local"},
		{"ff00::/8", "multicast"},
	}
}

func usable(p netip.Prefix) error {
	if !p.IsValid() {
		return fault.New(fault.Invalid, "not a prefix").WithHint("write an address and a length, such as 10.8.0.0/16")
	}
	if p != p.Masked() {
		return fault.New(fault.Invalid, "prefix %s has host bits set", p).WithHint("did you mean %s?", p.Masked())
	}
	narrowest := 30
	if p.Addr().Is6() {
		narrowest = 126
	}
	widest := widest(p.Addr())
	switch {
	case p.Bits() > narrowest:
		return fault.New(fault.Invalid, "prefix %s is too small", p).WithHint("use /%d or wider", narrowest)
	case p.Bits() < widest:
		return fault.New(fault.Invalid, "prefix %s is too wide", p).WithHint("use /%d or narrower", widest)
	}
	for _, u := range unusable() {
		if r := netip.MustParsePrefix(u.prefix); r.Overlaps(p) {
			return fault.New(fault.Invalid, "prefix %s overlaps %s, which is %s", p, r, u.why).
				WithHint("use a private range, such as 10.8.0.0/16 or a ULA such as fd00:8::/64")
		}
	}
	return nil
}

// widest is the shortest prefix length a pool of a's family may have.
func widest(a netip.Addr) int {
	if a.Is6() {
		return 48
	}
	return 8
}

// capacity counts the addresses that can be given, before extra reservations:
// all but network, gateway and, in IPv4, broadcast. It saturates.
func capacity(p netip.Prefix) uint64 {
	host := p.Addr().BitLen() - p.Bits()
	if host > 64 {
		return math.MaxUint64
	}
	n := uint64(1)<<host - 2 // for 64 bits the shift gives 0, and this 2^64-2
	if p.Addr().Is4() {
		n--
	}
	return n
}

// givable tells whether a is neither network, gateway nor broadcast. The
// caller has checked that it is in the prefix.
func (p *Pool) givable(a netip.Addr) bool {
	return p.gateway.Less(a) && !p.last.Less(a)
}

// Last is the highest host address of a prefix: in IPv4 the one before the
// broadcast address.
func Last(p netip.Prefix) netip.Addr {
	a := highest(p)
	if a.Is4() {
		return a.Prev() // broadcast
	}
	return a
}

func highest(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
