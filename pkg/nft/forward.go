//go:build linux

package nft

import (
	"net/netip"

	"github.com/google/nftables/expr"
)

// forwardRules is the one place where a state lets packets through or not.
//
// The state comes before any look at connection tracking: an "established" rule
// above it would keep flows alive that the state forbids. Lane tor comes before
// lane vpn, so that no mistake below can concern it. The last rule drops like
// the chain's policy does, because a policy is not part of a rule change.
func (c Config) forwardRules(s State) rules {
	vpn, tor := c.VPN.Interface, c.Tor.Interface
	var r rules
	r.add("not our lanes", notIif(vpn), notIif(tor), notOif(vpn), notOif(tor), accept())

	// Lane tor is never forwarded, in none of its states. Strangers who send
	// packets to a lane learn nothing; only devices are answered.
	r.refuse("lane tor", TorRefused, iif(tor))
	r.refuse("lane vpn to lane tor", PeerToPeer, iif(vpn), oif(tor))
	r.add("lane tor from outside", oif(tor), count(TorRefused), drop())

	switch s.VPN {
	case VPNUp:
		c.forwardVPN(&r)
	default:
		r.refuse("lane vpn down", VPNRefused, iif(vpn))
		r.add("lane vpn from outside while down", oif(vpn), count(VPNRefused), drop())
	}
	r.add("everything else", count(Unmatched), drop())
	return r
}

func (c Config) forwardVPN(r *rules) {
	vpn := c.VPN
	r.add("spoofed source", iif(vpn.Interface), saddr(vpn.Prefix4, expr.CmpOpNeq), count(Spoofed), drop())
	r.add("spoofed source", iif(vpn.Interface), saddr(vpn.Prefix6, expr.CmpOpNeq), count(Spoofed), drop())
	if c.PeerToPeer {
		r.add("device to device", iif(vpn.Interface), oif(vpn.Interface), accept())
	} else {
		r.refuse("device to device", PeerToPeer, iif(vpn.Interface), oif(vpn.Interface))
	}
	for _, p := range c.BlockedDestinations {
		r.refuse("blocked destination "+p.String(), BlockedDestination, iif(vpn.Interface), daddr(p, expr.CmpOpEq))
	}
	for _, port := range c.BlockedPorts {
		r.add("blocked port", iif(vpn.Interface), tcpDport(port), count(BlockedPort), rejectTCP())
	}
	r.add("segment size out", iif(vpn.Interface), tcpSyn(), clampMSS())
	r.add("segment size in", oif(vpn.Interface), tcpSyn(), clampMSS())
	const answers = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	r.add("lane vpn to the internet", iif(vpn.Interface), ctState(answers|expr.CtStateBitNEW), accept())
	r.add("answers to lane vpn", oif(vpn.Interface), ctState(answers), accept())
}

const (
	icmp4Echo = 8
	icmp6Echo = 128
)

// icmp4Errors are destination unreachable, time exceeded and parameter problem
// (RFC 792).
func icmp4Errors() []byte { return []byte{3, 11, 12} }

// icmp6Errors are destination unreachable, packet too big, time exceeded and
// parameter problem (RFC 4443).
func icmp6Errors() []byte { return []byte{1, 2, 3, 4} }

// linkLocalSources are senders that have no address in a lane yet: link-local
// ones, and the unspecified address of duplicate address detection and DHCP.
func linkLocalSources() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("::/128"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("0.0.0.0/32"),
	}
}

func multicast() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("ff00::/8"),
		netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("255.255.255.255/32"),
	}
}
