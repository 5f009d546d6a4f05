package gate

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"vpnd/pkg/fault"
)

// DefaultPort is where the client API listens.
const DefaultPort = 4605

// Address is where a server's client API is.
type Address struct {
	Host string // a name in lower case or an IP address, without brackets
	Port uint16
}

// HostPort is the form that dialers take.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// String is the form that people are shown: the port only when it is unusual.
func (a Address) String() string {
	if a.Port != DefaultPort {
		return a.HostPort()
	}
	return a.Host
}

// ParseAddress reads what a person types: https://host, host, host:port or
// [v6]:port; the port is 4605 when none is given.
func ParseAddress(s string) (Address, error) {
	bad := func(format string, args ...any) (Address, error) {
		return Address{}, fault.InvalidField("URL", format, args...).
			WithHint("it looks like https://vpn.example.org, vpn.example.org, 192.0.2.1:4605 or [2001:db8::1]:4605")
	}
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		if !strings.EqualFold(scheme, "https") {
			return bad("%q is not understood: the server speaks https only", scheme+"://")
		}
		rest = after
	}
	if ip, err := netip.ParseAddr(rest); err == nil {
		return addressOf(ip.String(), DefaultPort, bad)
	}
	u, err := url.Parse("https://" + rest)
	switch {
	case err != nil || u.Host == "":
		return bad("%q is not a server's address", s)
	case u.User != nil:
		return bad("no user name belongs in it; say --user")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "", strings.ContainsAny(rest, "?#"):
		return bad("%q has more than a host and a port", s)
	}
	port := uint16(DefaultPort)
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return bad("%q is not a port: 1 to 65535", p)
		}
		port = uint16(n)
	}
	return addressOf(u.Hostname(), port, bad)
}

func addressOf(host string, port uint16, bad func(string, ...any) (Address, error)) (Address, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return bad("%s is not an address that a server can have", host)
		}
		return Address{Host: ip.Unmap().String(), Port: port}, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !validName(host) {
		return bad("%q is neither a host name nor an IP address", host)
	}
	return Address{Host: host, Port: port}, nil
}

// validName tells whether host is made of DNS labels (RFC 1123, 2.1); a name
// that ends in a number would be an IPv4 address gone wrong.
func validName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil
}
