package wgdev

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"vpnd/pkg/fault"
)

// Peer is what a device is told of one peer.
type Peer struct {
	PublicKey    Key
	PresharedKey PresharedKey   // zero means none
	AllowedIPs   []netip.Prefix // in any order; host bits do not count
	Endpoint     netip.AddrPort // zero means unknown, and leaves a known one alone
	Keepalive    time.Duration  // whole seconds up to 65535; zero means off
}

// PeerState is what a device tells of one peer. Endpoint is the last address
// the peer spoke from.
type PeerState struct {
	Peer
	LastHandshake time.Time // zero when there was none
	RxBytes       uint64    // received from the peer, since it was added
	TxBytes       uint64    // sent to the peer, since it was added
}

// maxKeepalive is the largest interval the protocol's 16 bits hold.
const maxKeepalive = 65535 * time.Second

// SameConfig tells whether p and q program the same peer. Endpoints are not
// compared: a peer that roams is still as it should be.
func (p Peer) SameConfig(q Peer) bool {
	return p.PublicKey == q.PublicKey &&
		p.PresharedKey.Equal(q.PresharedKey) &&
		p.Keepalive == q.Keepalive &&
		slices.Equal(sortedPrefixes(p.AllowedIPs), sortedPrefixes(q.AllowedIPs))
}

func sortedPrefixes(in []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(in))
	for i, p := range in {
		out[i] = p.Masked()
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// checkPeers finds what a device would accept in silence or refuse half way
// through: a device applies a batch peer by peer and keeps what it did before
// the first mistake.
func checkPeers(own Key, peers []Peer) error {
	keys := make(map[Key]bool, len(peers))
	holder := make(map[netip.Prefix]Key, 2*len(peers))
	for i, p := range peers {
		path := fmt.Sprintf("peers[%d]", i)
		switch {
		case p.PublicKey.IsZero():
			return fault.InvalidField(path+".public_key", "the key is missing")
		case lowOrder(p.PublicKey):
			return fault.InvalidField(path+".public_key", "the key is a point of low order")
		case p.PublicKey == own:
			return fault.InvalidField(path+".public_key", "%s is this device's own key", p.PublicKey)
		case keys[p.PublicKey]:
			return fault.InvalidField(path+".public_key", "%s is there twice", p.PublicKey)
		case p.Keepalive < 0 || p.Keepalive > maxKeepalive || p.Keepalive%time.Second != 0:
			return fault.InvalidField(path+".keepalive", "%s is not a number of whole seconds up to 65535", p.Keepalive)
		}
		keys[p.PublicKey] = true
		if e := p.Endpoint; e != (netip.AddrPort{}) && (!e.IsValid() || e.Port() == 0 || e.Addr().IsUnspecified()) {
			return fault.InvalidField(path+".endpoint", "%s is not an address and port to send to", e)
		}
		for j, prefix := range p.AllowedIPs {
			path := fmt.Sprintf("%s.allowed_ips[%d]", path, j)
			if !prefix.IsValid() || prefix.Addr().Is4In6() {
				return fault.InvalidField(path, "%s is not an IPv4 or IPv6 prefix", prefix)
			}
			prefix = prefix.Masked()
			if other, taken := holder[prefix]; taken && other != p.PublicKey {
				return fault.InvalidField(path, "%s belongs to peer %s too, which would lose it in silence", prefix, other)
			}
			holder[prefix] = p.PublicKey
		}
	}
	return nil
}
