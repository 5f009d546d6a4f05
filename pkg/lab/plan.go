//go:build linux

package lab

import (
	"fmt"
	"net/netip"
)

// The names of the machines that every lab has. Clients are Client(1) and so on.
const (
	Internet = "internet"
	Server   = "server"
)

// MaxClients is how many clients the address plan has room for.
const MaxClients = 200

// Client is the name of the n-th client, counted from 1.
func Client(n int) string { return fmt.Sprintf("client%d", n) }

// Interface is what the link of a server or client machine is called there.
const Interface = "eth0"

// The addresses of the targets, in the machine Internet. Both names
// target.test and example.test lead to TargetV4 and TargetV6; the resolver
// answers there and at ResolverV4 and ResolverV6.
var (
	TargetV4   = netip.AddrFrom4([4]byte{203, 0, 113, 10})
	TargetV6   = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x00, 0xff, 15: 0x10})
	ResolverV4 = netip.AddrFrom4([4]byte{203, 0, 113, 53})
	ResolverV6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x00, 0xff, 15: 0x53})
)

// machinePlan is where a machine sits. Every machine but the internet is alone
// in its own subnet, so that none reaches another except through the router.
type machinePlan struct {
	name string
	// v4 and v6 are the machine's address with the length of its subnet, gw4 and
	// gw6 the router's; invalid for the internet itself.
	v4, v6   netip.Prefix
	gw4, gw6 netip.Addr
	uplink   string // the router's end of the link
}

// plan gives the machines of a lab with that many clients, the internet first.
func plan(clients int) []machinePlan {
	out := []machinePlan{
		{name: Internet},
		{
			name:   Server,
			v4:     netip.PrefixFrom(publicV4(0, 1), 24),
			v6:     netip.PrefixFrom(publicV6(0, 1), 64),
			gw4:    publicV4(0, 254),
			gw6:    publicV6(0, 0xfe),
			uplink: "to-server",
		},
	}
	for n := 1; n <= clients; n++ {
		out = append(out, machinePlan{
			name:   Client(n),
			v4:     netip.PrefixFrom(publicV4(byte(n), 2), 24),
			v6:     netip.PrefixFrom(publicV6(byte(n), 2), 64),
			gw4:    publicV4(byte(n), 1),
			gw6:    publicV6(byte(n), 1),
			uplink: fmt.Sprintf("to-client%d", n),
		})
	}
	return out
}

// publicV4 is 198.18.net.host, from the block that RFC 2544 keeps for tests.
func publicV4(net, host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, net, host})
}

// publicV6 is fd18:0:0:net::host.
func publicV6(net, host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0x18, 7: net, 15: host})
}
