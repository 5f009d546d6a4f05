//go:build linux

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// DefaultTable is the name of the table when Config.Table is empty.
const DefaultTable = "vpnd"

// Lane is one WireGuard interface as the rules see it. The interface need not
// exist: rules match by name.
type Lane struct {
	Interface          string       // such as wg0; at most 15 bytes
	Prefix4, Prefix6   netip.Prefix // where device addresses come from
	Gateway4, Gateway6 netip.Addr   // the server's own address, inside the prefix

	// Canary4 and Canary6 are the addresses of the device whose packets are counted,
	// inside the prefix. Without them (all zero, in both lanes) nothing is.
	Canary4, Canary6 netip.Addr
}

// Config is what the rules are made from. It does not change while a Firewall
// lives.
type Config struct {
	Table    string // empty: DefaultTable
	VPN, Tor Lane

	// ControlPort is the TCP port that devices reach on their own lane's gateway
	// addresses, in every state.
	ControlPort uint16

	// TransPort, DNSPort and PagePort are the ports of this host that devices of
	// lane tor are redirected to: any TCP and, on DNSPort, DNS over UDP and TCP while
	// the lane is up, HTTP to PagePort during maintenance. Who listens there must
	// do so on the lane's gateway addresses or on all. Without them (all zero) the
	// lane can only be blocked. DNSPort cannot be 53.
	TransPort, DNSPort, PagePort uint16

	// BlockedPorts are TCP destination ports refused from lane vpn to the
	// internet. Nil means DefaultBlockedPorts, empty means none.
	BlockedPorts []uint16

	// BlockedDestinations are networks that lane vpn may not reach although the
	// server could. Nil means DefaultBlockedDestinations, empty means none.
	// Private networks behind the server are reachable unless listed here.
	BlockedDestinations []netip.Prefix

	// PeerToPeer lets devices of lane vpn reach each other. Devices of different
	// lanes, and devices of lane tor, never do.
	PeerToPeer bool

	// NetNS is the descriptor of the network namespace to work in; 0 means that
	// of the thread that calls first.
	NetNS int
}

// DefaultBlockedPorts is SMTP: a VPN that relays spam loses its address.
func DefaultBlockedPorts() []uint16 { return []uint16{25} }

// DefaultBlockedDestinations are link-local addresses, among them the metadata
// services of cloud providers, which hand out the server's credentials. The
// last one is the IPv6 address of the EC2 metadata service.
func DefaultBlockedDestinations() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("fd00:ec2::254/128"),
	}
}

// Validate reports every problem of the configuration at once, as a
// *fault.Error of code invalid with one field each.
func (c Config) Validate() error {
	var fields []fault.Field
	bad := func(path, format string, args ...any) {
		fields = append(fields, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
	}

	if !identifier(c.Table) && c.Table != "" {
		bad("table", "%q is not a table name: letters, digits and _ only, a letter first", c.Table)
	}
	c.VPN.validate("vpn", bad)
	c.Tor.validate("tor", bad)
	if c.VPN.Interface == c.Tor.Interface {
		bad("tor.interface", "%q is the interface of lane vpn", c.Tor.Interface)
	}
	if c.VPN.Prefix4.Overlaps(c.Tor.Prefix4) {
		bad("tor.prefix4", "%s overlaps %s of lane vpn", c.Tor.Prefix4, c.VPN.Prefix4)
	}
	if c.VPN.Prefix6.Overlaps(c.Tor.Prefix6) {
		bad("tor.prefix6", "%s overlaps %s of lane vpn", c.Tor.Prefix6, c.VPN.Prefix6)
	}
	if c.ControlPort == 0 {
		bad("control_port", "is missing")
	}
	if c.VPN.hasCanary() != c.Tor.hasCanary() {
		bad("canary", "has addresses in one lane only")
	}
	c.validateTorPorts(bad)
	if slices.Contains(c.BlockedPorts, 0) {
		bad("blocked_ports", "0 is not a port")
	}
	for i, p := range c.BlockedDestinations {
		if !p.IsValid() || p.Masked() != p {
			bad(fmt.Sprintf("blocked_destinations[%d]", i), "%s is not a network address", p)
		}
	}

	if len(fields) == 0 {
		return nil
	}
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i] = f.Path + ": " + f.Message
	}
	return fault.New(fault.Invalid, "firewall: %s", strings.Join(texts, "; ")).WithFields(fields...)
}

func (c Config) validateTorPorts(bad func(path, format string, args ...any)) {
	if c.TransPort == 0 && c.DNSPort == 0 && c.PagePort == 0 {
		return
	}
	used := map[uint16]string{c.ControlPort: "control_port"}
	for _, p := range []struct {
		path string
		port uint16
	}{{"trans_port", c.TransPort}, {"dns_port", c.DNSPort}, {"page_port", c.PagePort}} {
		switch other, taken := used[p.port]; {
		case p.port == 0:
			bad(p.path, "is missing: give all ports of lane tor or none")
		case taken:
			bad(p.path, "%d is %s", p.port, other)
		case p.path == "dns_port" && p.port == portDNS:
			bad(p.path, "%d would not be told apart from an attempt to reach it directly", p.port)
		}
		used[p.port] = p.path
	}
}

func (l Lane) validate(path string, bad func(path, format string, args ...any)) {
	switch {
	case l.Interface == "":
		bad(path+".interface", "is missing")
	case len(l.Interface) >= unix.IFNAMSIZ || strings.ContainsAny(l.Interface, "/ \t\n\x00") || l.Interface == "lo":
		bad(path+".interface", "%q is not a name for it", l.Interface)
	}
	family := func(name string, p netip.Prefix, gw netip.Addr, want4 bool) {
		switch {
		case !p.IsValid() || p.Addr().Is4() != want4 || p.Addr().Is4In6():
			bad(path+".prefix"+name, "%s is not an IPv%s prefix", p, name)
		case p.Masked() != p:
			bad(path+".prefix"+name, "%s has bits set after the prefix: write %s", p, p.Masked())
		case !p.Contains(gw):
			bad(path+".gateway"+name, "%s is not inside %s", gw, p)
		}
	}
	family("4", l.Prefix4, l.Gateway4, true)
	family("6", l.Prefix6, l.Gateway6, false)
	if l.hasCanary() && (!l.Prefix4.Contains(l.Canary4) || !l.Prefix6.Contains(l.Canary6)) {
		bad(path+".canary", "%s and %s are not inside the prefixes", l.Canary4, l.Canary6)
	}
}

func (l Lane) hasCanary() bool { return l.Canary4.IsValid() || l.Canary6.IsValid() }

// withDefaults returns a copy that shares nothing with c and has every default
// filled in.
func (c Config) withDefaults() Config {
	if c.Table == "" {
		c.Table = DefaultTable
	}
	if c.BlockedPorts == nil {
		c.BlockedPorts = DefaultBlockedPorts()
	}
	if c.BlockedDestinations == nil {
		c.BlockedDestinations = DefaultBlockedDestinations()
	}
	c.BlockedPorts = slices.Clone(c.BlockedPorts)
	slices.Sort(c.BlockedPorts)
	c.BlockedPorts = slices.Compact(c.BlockedPorts)
	c.BlockedDestinations = slices.Clone(c.BlockedDestinations)
	return c
}

func identifier(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
