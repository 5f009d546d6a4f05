//go:build linux

package nft

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	portDNS  = 53
	portHTTP = 80

	headerDNS = 12 // bytes
)

// localPort is a port of this host that devices of lane tor are redirected to.
type localPort struct {
	proto byte
	port  uint16
}

func (p localPort) source() exprs { return transportPort(p.proto, 0, p.port) }
func (p localPort) dest() exprs   { return transportPort(p.proto, 2, p.port) }

// torPorts gives the ports that devices of lane tor reach in a state, always by
// redirection. Without a configuration of ports there are none.
func (c Config) torPorts(s TorState) []localPort {
	switch {
	case !c.redirects():
		return nil
	case s == TorUp:
		return []localPort{{unix.IPPROTO_UDP, c.DNSPort}, {unix.IPPROTO_TCP, c.DNSPort}, {unix.IPPROTO_TCP, c.TransPort}}
	case s == TorMaintenance:
		return []localPort{{unix.IPPROTO_TCP, c.PagePort}}
	}
	return nil
}

// redirects tells whether lane tor has states other than blocked.
func (c Config) redirects() bool { return c.TransPort != 0 && c.DNSPort != 0 && c.PagePort != 0 }

// dstnatRules redirect what devices of lane tor send to the ports of the state.
// The kernel asks them for the first packet of a flow only: they open a state
// and never close one, which is what c_input and c_output are for.
func (c Config) dstnatRules() rules {
	var r rules
	r.add("other interfaces", notIif(c.Tor.Interface), accept())
	for _, gw := range c.torGateways() {
		r.add("control port", gw, tcpDport(c.ControlPort), accept())
	}
	r.add("lane tor by state", jump(chainTorDstnat))
	return r
}

func (c Config) torGateways() []exprs {
	return []exprs{daddr(host(c.Tor.Gateway4), expr.CmpOpEq), daddr(host(c.Tor.Gateway6), expr.CmpOpEq)}
}

func (c Config) torDstnatRules(s TorState) rules {
	var r rules
	if !c.redirects() {
		return r
	}
	tcp := func(port uint16) exprs { return localPort{unix.IPPROTO_TCP, port}.dest() }
	own := func() {
		for _, gw := range c.torGateways() {
			r.add("tcp to the gateway itself", gw, l4proto(unix.IPPROTO_TCP), accept())
		}
	}
	switch s {
	case TorUp:
		r.add("dns (udp)", localPort{unix.IPPROTO_UDP, portDNS}.dest(), redirect(c.DNSPort))
		r.add("dns (tcp)", tcp(portDNS), redirect(c.DNSPort))
		own()
		r.add("everything else of tcp", l4proto(unix.IPPROTO_TCP), redirect(c.TransPort))
	case TorMaintenance:
		own()
		r.add("maintenance page", tcp(portHTTP), redirect(c.PagePort))
	}
	return r
}

// gateRules refuse, before routing, what lane tor sends to anywhere but here.
// They know no state: what is redirected to a port of another state is for
// c_input to refuse.
func (c Config) gateRules() rules {
	tor := c.Tor
	var r rules
	r.add("other interfaces", notIif(tor.Interface), accept())
	r.add("redirected", ctDNAT(), accept())
	r.add("gateway", daddr(host(tor.Gateway4), expr.CmpOpEq), accept())
	r.add("gateway", daddr(host(tor.Gateway6), expr.CmpOpEq), accept())
	r.refuse("lane tor", TorRefused)
	return r
}

// torInput belongs in c_input above every look at connection tracking's state:
// an open flow of another state has an established one, and its packets are
// addressed to the gateway by now.
func (c Config) torInput(r *rules) {
	in := slices.Concat(iif(c.Tor.Interface), ctDNAT())
	if c.redirects() {
		// tor's DNSPort (0.4.9.11, libevent 2.1.12) dies of datagrams that end
		// within the header of DNS: one device could take tor from all.
		r.refuse("too short for dns", TorRefused, in, localPort{unix.IPPROTO_UDP, c.DNSPort}.dest(), udpShorter(headerDNS))
	}
	r.add("lane tor by state", in, jump(chainTorInput))
	r.refuse("lane tor, not in this state", TorRefused, in)
}

// torInputRules see redirected packets of lane tor only.
func (c Config) torInputRules(s TorState) rules {
	var r rules
	for _, p := range c.torPorts(s) {
		r.add("lane tor "+s.String(), p.dest(), accept())
	}
	return r
}

// torOutputRules see packets of redirected flows to lane tor only.
func (c Config) torOutputRules(s TorState) rules {
	var r rules
	for _, p := range c.torPorts(s) {
		r.add("lane tor "+s.String(), p.source(), accept())
	}
	return r
}

// torOutput belongs in c_output above the rule for answers. What the ports of
// another state still have to say is dropped, except for resets: they are how
// a device learns that c_input or c_gate refused its packet, and carry nothing.
func (c Config) torOutput(r *rules) {
	out := oif(c.Tor.Interface)
	r.add("lane tor by state", out, ctDNAT(), jump(chainTorOutput))
	r.add("resets to lane tor", out, tcpRst(), ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	for _, p := range slices.Concat(c.torPorts(TorMaintenance), c.torPorts(TorUp)) {
		r.add("lane tor, not in this state", out, p.source(), count(TorRefused), drop())
	}
	// Ports of an earlier configuration.
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		r.add("lane tor, redirected in the past", out, ctDNAT(), l4proto(proto), count(TorRefused), drop())
	}
}

// ctDNAT matches packets, of both directions, of flows whose destination was
// changed. The kernel sets the mark only if the change made a difference, which
// is why DNSPort must not be 53.
func ctDNAT() exprs {
	const ipsDstNAT = 1 << 5
	return exprs{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, ipsDstNAT), Xor: make([]byte, 4),
		},
		cmp(expr.CmpOpNeq, 0, 0, 0, 0),
	}
}

// redirect sends a flow to a port of the interface's own first address. What
// the kernel would add by itself is spelled out, for Check to recognise.
func redirect(port uint16) exprs {
	const protoSpecified = 1 << 1
	return exprs{
		&expr.Immediate{Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Redir{RegisterProtoMin: reg, RegisterProtoMax: reg, Flags: protoSpecified},
	}
}
