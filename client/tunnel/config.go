package tunnel

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/wgdev"
)

// Mark is the firewall mark of packets that belong around the tunnel: those of
// WireGuard itself and of calls to the server. Table is the routing table of the
// rest. The number is that of the client API's port, to be recognised by.
const (
	Mark  = 4605
	Table = 4605
)

// DefaultInterface is what the interface is called unless told otherwise.
const DefaultInterface = "vpn0"

// defaultMTU fits WireGuard over IPv6 into 1500 bytes.
const defaultMTU = 1420

// Limits of what a server may ask for.
const (
	maxAddresses  = 8
	maxAllowedIPs = 256
	maxDNS        = 8
	maxKeepalive  = 65535
)

// Config is what the tunnel should be.
type Config struct {
	Interface string
	Key       wgdev.PrivateKey
	Peer      wgdev.Peer
	Addresses []netip.Prefix
	MTU       int
	DNS       []netip.Addr
}

// Lane is a lane's configuration as the server gave it, understood.
type Lane struct {
	Host      string // of the endpoint: a name or an address
	Port      uint16
	Peer      wgdev.Peer // without an endpoint
	Addresses []netip.Prefix
	MTU       int
	DNS       []netip.Addr
	Control   netip.AddrPort // the client API inside the lane; zero when unusable
}

// ParseLane reads what the server sent. Its errors name the field.
func ParseLane(c client.LaneConfig) (Lane, error) {
	l := Lane{MTU: c.MTU}
	var err error
	bad := func(field, format string, args ...any) (Lane, error) {
		f := fault.InvalidField(field, format, args...)
		return Lane{}, fault.New(fault.Unavailable, "the server gave a configuration that is not understood: %s", f.Message)
	}
	host, port, err := net.SplitHostPort(c.Endpoint)
	if err != nil || len(host) > 253 {
		return bad("endpoint", "%.300q is not host:port", c.Endpoint)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return bad("endpoint", "%.10q is not a port", port)
	}
	l.Host, l.Port = host, uint16(n)
	if l.Peer.PublicKey, err = wgdev.ParsePublicKey(c.ServerPublicKey); err != nil {
		return bad("server_public_key", "%v", err)
	}
	if l.Peer.PresharedKey, err = wgdev.ParsePresharedKey(c.PresharedKey); err != nil {
		return bad("preshared_key", "%v", err)
	}
	if len(c.Addresses) == 0 || len(c.Addresses) > maxAddresses {
		return bad("addresses", "%d of them", len(c.Addresses))
	}
	for _, s := range c.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil || !p.Addr().IsGlobalUnicast() || p.Addr().Is4In6() {
			return bad("addresses", "%.50q is not an address with its prefix length", s)
		}
		l.Addresses = append(l.Addresses, p)
	}
	if len(c.AllowedIPs) == 0 || len(c.AllowedIPs) > maxAllowedIPs {
		return bad("allowed_ips", "%d of them", len(c.AllowedIPs))
	}
	for _, s := range c.AllowedIPs {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return bad("allowed_ips", "%.50q is not a prefix", s)
		}
		l.Peer.AllowedIPs = append(l.Peer.AllowedIPs, p.Masked())
	}
	if len(c.DNS) > maxDNS {
		return bad("dns", "%d of them", len(c.DNS))
	}
	for _, s := range c.DNS {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return bad("dns", "%.50q is not an address", s)
		}
		l.DNS = append(l.DNS, a.Unmap())
	}
	if l.MTU == 0 {
		l.MTU = defaultMTU
	}
	// IPv6 needs 1280 (RFC 8200, 5).
	if l.MTU < 1280 || l.MTU > 9000 {
		return bad("mtu", "%d is not between 1280 and 9000", l.MTU)
	}
	if c.PersistentKeepalive < 0 || c.PersistentKeepalive > maxKeepalive {
		return bad("persistent_keepalive", "%d", c.PersistentKeepalive)
	}
	l.Peer.Keepalive = time.Duration(c.PersistentKeepalive) * time.Second
	l.Control = parseControl(c.ControlURL)
	return l, nil
}

// parseControl takes addresses only: a name would be looked up by somebody. The
// tunnel works without it.
func parseControl(s string) netip.AddrPort {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" {
		return netip.AddrPort{}
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	ap, err := netip.ParseAddrPort(net.JoinHostPort(u.Hostname(), port))
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" || !ap.Addr().IsGlobalUnicast() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Stats is what the device tells of the peer.
type Stats struct {
	LastHandshake time.Time
	RxBytes       uint64
	TxBytes       uint64
}
