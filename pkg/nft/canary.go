//go:build linux

package nft

import (
	"context"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The chains that count. They decide nothing.
const (
	chainLeft    = "c_left"
	chainReached = "c_reached"
)

// canaryPriority comes after every filter and translation of ours and of most
// others: what gets there is let through.
const canaryPriority nftables.ChainPriority = 250

// The counters in the kernel.
const (
	leftVPN, leftTor       = "left_vpn", "left_tor"
	reachedVPN, reachedTor = "reached_vpn", "reached_tor"
)

// Canary counts packets that no rule should have let through, all of one
// device's that tries.
type Canary struct {
	// LeftVPN and LeftTor left the host by another interface than a lane's or lo; of lane
	// vpn only those with an address of a lane as source, the others may.
	LeftVPN, LeftTor uint64
	// ReachedVPN and ReachedTor arrived at a service of the host that no device of the lane
	// may reach in any state.
	ReachedVPN, ReachedTor uint64
}

// Canary reads the kernel's counters. It counts from the first time it is asked,
// and goes on when somebody has deleted the table; what was counted and not read
// until then is lost.
func (f *Firewall) Canary(ctx context.Context) (_ Canary, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.hangUpAfter(&err)
	all, err := f.counters(ctx, f.cfg.canaryTable())
	if err != nil {
		return Canary{}, err
	}
	first := f.seen == nil
	seen := make(map[string]uint64, len(all))
	for name, total := range map[string]*uint64{
		leftVPN: &f.canary.LeftVPN, leftTor: &f.canary.LeftTor,
		reachedVPN: &f.canary.ReachedVPN, reachedTor: &f.canary.ReachedTor,
	} {
		now, before := all[name].Packets, f.seen[name]
		seen[name] = now
		switch {
		case first:
		case now < before: // a new table
			*total += now
		default:
			*total += now - before
		}
	}
	f.seen = seen
	return f.canary, nil
}

func (c Config) canaryTable() string { return c.Table + "_canary" }

func canaryCounters() []string { return []string{leftVPN, leftTor, reachedVPN, reachedTor} }

func canaryChains() []chainSpec {
	const open = nftables.ChainPolicyAccept
	return []chainSpec{
		{chainLeft, nftables.ChainTypeFilter, *nftables.ChainHookPostrouting, canaryPriority, open},
		{chainReached, nftables.ChainTypeFilter, *nftables.ChainHookInput, canaryPriority, open},
	}
}

func (c Config) canaryRules() map[string]rules {
	return map[string]rules{chainLeft: c.leftRules(), chainReached: c.reachedRules()}
}

// leftRules count what leaves. A packet is the canary's by the source that its
// connection began with, whatever it was translated to, or by the source that it
// has: connection tracking does not know every packet.
func (c Config) leftRules() rules {
	var r rules
	for _, name := range []string{c.VPN.Interface, c.Tor.Interface, "lo"} {
		r.add("stays", oif(name), accept())
	}
	for _, a := range c.Tor.canary() {
		r.add("lane tor, by its connection", a.original, tally(leftTor), accept())
		r.add("lane tor, by its source", a.source, tally(leftTor), accept())
	}
	for _, a := range c.VPN.canary() {
		r.add("lane vpn, untranslated", a.source, tally(leftVPN), accept())
		for _, l := range c.lanes() {
			r.add("lane vpn, as somebody else", a.original, saddr(l.prefix(a.is6), expr.CmpOpEq), tally(leftVPN), accept())
		}
	}
	return r
}

// reachedRules count what is delivered to the host, other than c_input lets
// through in one state or another.
func (c Config) reachedRules() rules {
	var r rules
	r.add("other interfaces", notIif(c.VPN.Interface), notIif(c.Tor.Interface), accept())
	for _, p := range slices.Concat(c.torPorts(TorUp), c.torPorts(TorMaintenance)) {
		r.add("redirected", iif(c.Tor.Interface), ctDNAT(), p.dest(), accept())
	}
	for i, l := range c.lanes() {
		counter := []string{reachedVPN, reachedTor}[i]
		for _, a := range l.canary() {
			gateway, proto, echo := l.Gateway4, byte(unix.IPPROTO_ICMP), byte(icmp4Echo)
			if a.is6 {
				gateway, proto, echo = l.Gateway6, unix.IPPROTO_ICMPV6, icmp6Echo
			}
			at := slices.Concat(iif(l.Interface), daddr(host(gateway), expr.CmpOpEq))
			r.add("control port", at, tcpDport(c.ControlPort), accept())
			r.add("echo", at, icmpType(proto, echo), accept())
			r.add("errors", at, ctState(expr.CtStateBitRELATED), accept())
			r.add("host service", a.original, tally(counter), accept())
			r.add("host service, untracked", ctState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), a.source, tally(counter), accept())
		}
	}
	return r
}

// canaryMatch recognises the packets of one address.
type canaryMatch struct {
	is6      bool
	original exprs // of a connection that it began
	source   exprs // with it as source
}

func (l Lane) canary() []canaryMatch {
	return []canaryMatch{
		{false, ctOriginalSaddr(host(l.Canary4)), saddr(host(l.Canary4), expr.CmpOpEq)},
		{true, ctOriginalSaddr(host(l.Canary6)), saddr(host(l.Canary6), expr.CmpOpEq)},
	}
}

func (l Lane) prefix(is6 bool) netip.Prefix {
	if is6 {
		return l.Prefix6
	}
	return l.Prefix4
}

// ctOriginalSaddr matches packets, of both directions, of connections that the
// one address of p began.
func ctOriginalSaddr(p netip.Prefix) exprs {
	family := byte(unix.NFPROTO_IPV4)
	if p.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	return exprs{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, cmp(expr.CmpOpEq, family),
		// The library encodes the direction too wide, which only 0 (original) survives; the
		// kernel notes "attribute type 3 has an invalid length" in its log, and means no harm.
		&expr.Ct{Key: expr.CtKeySRC, Register: reg},
		cmp(expr.CmpOpEq, p.Addr().AsSlice()...),
	}
}

// tally adds the packet to one of the canary's counters.
func tally(name string) exprs { return count(Reason(name)) }
