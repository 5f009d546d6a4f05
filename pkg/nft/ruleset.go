//go:build linux

package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The chains. Their names carry a prefix because words such as "forward" are
// part of the nft language.
const (
	chainPre     = "c_pre"
	chainDstnat  = "c_dstnat"
	chainGate    = "c_gate"
	chainInput   = "c_input"
	chainForward = "c_forward"
	chainOutput  = "c_output"
	chainSrcnat  = "c_srcnat"
	chainEgress  = "c_egress"

	// Chains that the ones above jump to: all that depends on the state of lane tor,
	// so that a change of state is a change of a few rules.
	chainTorDstnat = "c_tor_dstnat"
	chainTorInput  = "c_tor_input"
	chainTorOutput = "c_tor_output"
)

// egressPriority comes after source translation (100), so that the chain sees
// the addresses that go on the wire.
const egressPriority nftables.ChainPriority = 150

// gatePriority comes after destination translation (-100), so that the chain
// sees what is redirected and what is not.
const gatePriority nftables.ChainPriority = -90

// chainSpec is one chain as it must be in the kernel: a base chain, or one to jump
// to, of which everything but the name is zero.
type chainSpec struct {
	name     string
	kind     nftables.ChainType
	hook     nftables.ChainHook
	priority nftables.ChainPriority
	policy   nftables.ChainPolicy
}

// base tells whether the kernel calls the chain by itself.
func (c chainSpec) base() bool { return c.kind != "" }

// chainSpecs lists the chains, those to jump to first. The three base chains that decide what is let through
// fail closed. The others only ever take away from lane traffic or
// translate it, with rules that say so; a drop policy would add nothing but
// the risk of cutting the host off.
func chainSpecs() []chainSpec {
	const (
		filter = nftables.ChainTypeFilter
		open   = nftables.ChainPolicyAccept
		closed = nftables.ChainPolicyDrop
	)
	return []chainSpec{
		{name: chainTorDstnat}, {name: chainTorInput}, {name: chainTorOutput},
		{chainPre, filter, *nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, open},
		{chainDstnat, nftables.ChainTypeNAT, *nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, open},
		{chainGate, filter, *nftables.ChainHookPrerouting, gatePriority, open},
		{chainInput, filter, *nftables.ChainHookInput, *nftables.ChainPriorityFilter, closed},
		{chainForward, filter, *nftables.ChainHookForward, *nftables.ChainPriorityFilter, closed},
		{chainOutput, filter, *nftables.ChainHookOutput, *nftables.ChainPriorityFilter, closed},
		{chainSrcnat, nftables.ChainTypeNAT, *nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, open},
		{chainEgress, filter, *nftables.ChainHookPostrouting, egressPriority, open},
	}
}

// rule is one rule as it must be in the kernel. The comment names it, in
// `nft list` and in a Drift.
type rule struct {
	comment string
	exprs   exprs
}

// rules is the content of one chain, in order.
type rules []rule

func (r *rules) add(comment string, parts ...exprs) {
	*r = append(*r, rule{comment, slices.Concat(parts...)})
}

// refuse adds the pair of rules that tells the sender at once: a reset for TCP,
// an ICMP error for everything else.
func (r *rules) refuse(comment string, why Reason, match ...exprs) {
	m := slices.Concat(match...)
	r.add(comment+" (tcp)", m, l4proto(unix.IPPROTO_TCP), count(why), rejectTCP())
	r.add(comment, m, count(why), rejectAny())
}

// ruleset gives the content of every chain for a state.
//
// Of what leaves the host only c_forward decides by state. A change of rules is
// atomic for one chain's evaluation and not for a packet's way through several
// hooks, so every state must be safe in c_forward alone, and source translation
// must not disappear while packets let through a moment ago are on their way.
// The state of lane tor chooses ports of this host only: c_forward refuses the
// lane in all of them, and c_input and c_output each are safe alone.
func (c Config) ruleset(s State) map[string]rules {
	return map[string]rules{
		chainPre:     c.preRules(),
		chainDstnat:  c.dstnatRules(),
		chainGate:    c.gateRules(),
		chainInput:   c.inputRules(),
		chainForward: c.forwardRules(s),
		chainOutput:  c.outputRules(),
		chainSrcnat:  c.srcnatRules(),
		chainEgress:  c.egressRules(),

		chainTorDstnat: c.torDstnatRules(s.Tor),
		chainTorInput:  c.torInputRules(s.Tor),
		chainTorOutput: c.torOutputRules(s.Tor),
	}
}

func (c Config) lanes() [2]Lane { return [2]Lane{c.VPN, c.Tor} }

// preRules refuse packets that claim an address their lane does not have, before
// routing and connection tracking see them. Multicast and link-local packets,
// which every operating system sends on a new interface, vanish uncounted.
func (c Config) preRules() rules {
	var r rules
	r.add("other interfaces", notIif(c.VPN.Interface), notIif(c.Tor.Interface), accept())
	for _, p := range linkLocalSources() {
		r.add("link-local noise", saddr(p, expr.CmpOpEq), drop())
	}
	for _, p := range multicast() {
		r.add("multicast noise", daddr(p, expr.CmpOpEq), drop())
	}
	for _, l := range c.lanes() {
		in := iif(l.Interface)
		r.add("a device is not the gateway", in, saddr(host(l.Gateway4), expr.CmpOpEq), count(Spoofed), drop())
		r.add("a device is not the gateway", in, saddr(host(l.Gateway6), expr.CmpOpEq), count(Spoofed), drop())
		r.add("own addresses", in, saddr(l.Prefix4, expr.CmpOpEq), accept())
		r.add("own addresses", in, saddr(l.Prefix6, expr.CmpOpEq), accept())
	}
	r.add("spoofed source", count(Spoofed), drop())
	return r
}

// inputRules let devices reach the control port and an echo on their own lane's
// gateway address, devices of lane tor the ports they are redirected to in the
// state, and nothing else of the host. Nobody reaches a gateway address from
// outside its lane.
func (c Config) inputRules() rules {
	var r rules
	r.add("local processes", iif("lo"), accept())
	outside := slices.Concat(notIif(c.VPN.Interface), notIif(c.Tor.Interface))
	for _, l := range c.lanes() {
		r.add("gateway address from outside", outside, daddr(host(l.Gateway4), expr.CmpOpEq), count(OutsideGateway), drop())
		r.add("gateway address from outside", outside, daddr(host(l.Gateway6), expr.CmpOpEq), count(OutsideGateway), drop())
	}
	r.add("other interfaces", outside, accept())
	c.torInput(&r)
	for _, l := range c.lanes() {
		gateway4 := slices.Concat(iif(l.Interface), daddr(host(l.Gateway4), expr.CmpOpEq))
		gateway6 := slices.Concat(iif(l.Interface), daddr(host(l.Gateway6), expr.CmpOpEq))
		for _, gw := range []exprs{gateway4, gateway6} {
			r.add("control port", gw, tcpDport(c.ControlPort), accept())
			r.add("answers to the host", gw, ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
		}
		r.add("echo", gateway4, icmpType(unix.IPPROTO_ICMP, icmp4Echo), accept())
		r.add("echo", gateway6, icmpType(unix.IPPROTO_ICMPV6, icmp6Echo), accept())
	}
	r.refuse("host services", HostService)
	return r
}

// outputRules keep the host from opening connections to devices. What it says
// to them is an answer, or an ICMP error about a packet of theirs.
func (c Config) outputRules() rules {
	var r rules
	r.add("other interfaces", notOif(c.VPN.Interface), notOif(c.Tor.Interface), accept())
	c.torOutput(&r)
	r.add("answers to devices", ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	for _, t := range icmp4Errors() {
		r.add("icmp errors", icmpType(unix.IPPROTO_ICMP, t), accept())
	}
	for _, t := range icmp6Errors() {
		r.add("icmp errors", icmpType(unix.IPPROTO_ICMPV6, t), accept())
	}
	r.add("host to device", count(HostToDevice), drop())
	return r
}

// srcnatRules hide lane vpn behind the address of whichever interface its
// packets leave through.
func (c Config) srcnatRules() rules {
	var r rules
	out := c.leaving()
	r.add("lane vpn", out, saddr(c.VPN.Prefix4, expr.CmpOpEq), masquerade())
	r.add("lane vpn", out, saddr(c.VPN.Prefix6, expr.CmpOpEq), masquerade())
	return r
}

// egressRules hold whatever state or mistake comes before them: no packet
// leaves the host with a lane's address as its source. For lane tor, which is
// never translated, it is a second lock on the door.
func (c Config) egressRules() rules {
	var r rules
	out := c.leaving()
	for _, l := range c.lanes() {
		r.add("lane address on the wire", out, saddr(l.Prefix4, expr.CmpOpEq), count(Untranslated), drop())
		r.add("lane address on the wire", out, saddr(l.Prefix6, expr.CmpOpEq), count(Untranslated), drop())
	}
	return r
}

func (c Config) leaving() exprs {
	return slices.Concat(notOif(c.VPN.Interface), notOif(c.Tor.Interface), notOif("lo"))
}
