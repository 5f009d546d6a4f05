package canary

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
)

// reach says where a probe goes.
type reach int

const (
	outside reach = iota
	gateway       // of the lane itself
	host          // addresses of this server other than the lane's gateway
	control       // the gateway's echo, which every device may have
)

// probe is a packet that must not get through, or the fragments of one.
type probe struct {
	kind  string
	reach reach
	path
	proto   byte
	port    uint16
	token   uint16 // in the answer: port or echo id
	packets [][]byte
}

// family is the word for a probe's family.
func (p probe) family() string {
	if p.src.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// outsiders are addresses for documentation (RFC 5737, 3849): nobody has them,
// so nobody is bothered when one does get out.
func outsiders() []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{198, 51, 100, 1}), netip.AddrFrom4([4]byte{203, 0, 113, 1}),
		netip.MustParseAddr("2001:db8::1"),
	}
}

// serverAddresses are those that this host has towards the internet. No packet
// is sent to learn them.
func serverAddresses() []netip.Addr {
	var out []netip.Addr
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue // no route in this family
		}
		out = append(out, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
		_ = c.Close()
	}
	return out
}

// planner makes the probes of a lane.
type planner struct {
	lane  lanes.Name
	tor   config.Tor
	token uint16
	out   []probe
}

// plan gives everything that is tried from own, an address of the canary. The
// last probe is the control.
func (pl *planner) plan(own, gw netip.Addr, hosts []netip.Addr) {
	for i, dst := range outsiders() {
		if dst.Is4() != own.Is4() {
			continue
		}
		p := path{own, dst}
		for _, port := range []uint16{80, 443, 25} {
			pl.syn("tcp", outside, p, port)
		}
		if i > 0 && own.Is4() {
			continue // one address of each family takes the rest
		}
		pl.datagram("udp53", outside, p, 53, []byte("this is not DNS"))
		pl.datagram("udp443", outside, p, 443, []byte("vpnd leak test"))
		pl.ping("icmp", outside, p)
		pl.fragmented(p)
		token := pl.next()
		pl.add(probe{kind: "dns", reach: outside, path: p, proto: unix.IPPROTO_UDP, port: 53, token: token},
			p.packet(unix.IPPROTO_UDP, token, p.udp(token, 53, dnsQuery(token))))
	}
	tcp, udp := []uint16{22, pl.tor.TransPort, pl.tor.DNSPort, pl.tor.PagePort}, []uint16{123, pl.tor.DNSPort}
	if pl.lane == lanes.VPN { // in lane tor the gateway answers DNS
		tcp, udp = append(tcp, 53), append(udp, 53)
	}
	pl.services("gateway", gateway, path{own, gw}, tcp, udp)
	for _, h := range hosts {
		if h.Is4() == own.Is4() && h != gw && h != own {
			pl.services("host", host, path{own, h}, tcp, udp)
		}
	}
	local := netip.IPv6Loopback()
	if own.Is4() {
		local = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	pl.services("loopback", host, path{own, local}, tcp, udp)
	pl.ping("echo", control, path{own, gw})
}

func (pl *planner) services(name string, r reach, p path, tcp, udp []uint16) {
	for _, port := range tcp {
		pl.syn(name+"-tcp", r, p, port)
	}
	for _, port := range udp {
		pl.datagram(name+"-udp", r, p, port, []byte("vpnd leak test"))
	}
}

func (pl *planner) next() uint16 {
	pl.token++
	return pl.token
}

func (pl *planner) add(p probe, packets ...[]byte) {
	p.packets = packets
	pl.out = append(pl.out, p)
}

func (pl *planner) syn(kind string, r reach, p path, port uint16) {
	token := pl.next()
	pl.add(probe{kind: kind, reach: r, path: p, proto: unix.IPPROTO_TCP, port: port, token: token},
		p.packet(unix.IPPROTO_TCP, token, p.tcp(token, port, rand.Uint32(), 0, tcpSYN)))
}

func (pl *planner) datagram(kind string, r reach, p path, port uint16, data []byte) {
	token := pl.next()
	pl.add(probe{kind: kind, reach: r, path: p, proto: unix.IPPROTO_UDP, port: port, token: token},
		p.packet(unix.IPPROTO_UDP, token, p.udp(token, port, data)))
}

func (pl *planner) ping(kind string, r reach, p path) {
	token := pl.next()
	pl.add(probe{kind: kind, reach: r, path: p, proto: p.icmp(), token: token}, p.packet(p.icmp(), token, p.echo(token, 1, []byte("vpnd leak test"))))
}

// fragmented adds a datagram and an echo in two fragments each.
func (pl *planner) fragmented(p path) {
	data := make([]byte, 2*firstFragment)
	token := pl.next()
	pl.add(probe{kind: "fragment", reach: outside, path: p, proto: unix.IPPROTO_UDP, port: 443, token: token},
		p.fragments(unix.IPPROTO_UDP, token, p.udp(token, 443, data))...)
	token = pl.next()
	pl.add(probe{kind: "fragment", reach: outside, path: p, proto: p.icmp(), token: token},
		p.fragments(p.icmp(), token, p.echo(token, 1, data))...)
}

// leaked tells whether an answer shows that a packet got where it must not. The
// lane may have changed its state during the test: an answer is innocent if
// one of the states allows it.
func (p probe) leaked(lane lanes.Name, what verdict, states ...string) bool {
	switch {
	case what == expired:
		return lane == lanes.Tor // only a router elsewhere lets a packet expire
	case what != reply || p.reach == control:
		return false
	case lane == lanes.VPN:
		return p.reach != outside
	case p.reach == gateway:
		return true
	case slices.Contains(states, string(lanes.TorUp)) && (p.proto == unix.IPPROTO_TCP || p.proto == unix.IPPROTO_UDP && p.port == 53):
		return false // by tor
	}
	return !slices.Contains(states, string(lanes.TorMaintenance)) || p.proto != unix.IPPROTO_TCP || p.port != 80
}
