package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/fault"
)

// problems gathers what is wrong, so that all of it is reported at once.
type problems []fault.Field

func (p *problems) add(path, format string, args ...any) {
	*p = append(*p, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (p *problems) duration(path string, d Duration, low, high time.Duration) {
	if d.D() < low || d.D() > high {
		p.add(path, "%s is outside %s to %s", d.D(), low, high)
	}
}

func (p *problems) oneOf(path, got string, want ...string) {
	if !slices.Contains(want, got) {
		p.add(path, "%q is not one of %s", got, strings.Join(want, ", "))
	}
}

func inRange[T int | uint8 | uint16 | uint32](p *problems, path string, v, low, high T) {
	if v < low || v > high {
		p.add(path, "%d is outside %d to %d", v, low, high)
	}
}

// Validate reports every problem with its path; none means the file is sound.
func (c Config) Validate() []fault.Field {
	var p problems
	for _, d := range [][2]string{{"paths.state", c.Paths.State}, {"paths.run", c.Paths.Run}, {"paths.log", c.Paths.Log}} {
		if !filepath.IsAbs(d[1]) {
			p.add(d[0], "%q is not an absolute path", d[1])
		}
	}
	if e := c.Server.Endpoint; e != "" && !validHost(e) {
		p.add("server.endpoint", "%q is neither a host name nor an address (no port, no scheme)", e)
	}
	p.oneOf("users.mode", c.Users.Mode, "system", "dynamic")
	inRange(&p, "users.base", c.Users.Base, 100_000, 4_000_000_000)
	c.Gateway.validate(&p)
	c.Auth.validate(&p)
	p.duration("sessions.heartbeat_ttl", c.Sessions.HeartbeatTTL, 5*time.Second, time.Hour)
	p.duration("sessions.hard_ttl", c.Sessions.HardTTL, time.Minute, 365*24*time.Hour)
	p.duration("sessions.history", c.Sessions.History, 0, 10*365*24*time.Hour)
	p.duration("ipam.quarantine", c.IPAM.Quarantine, 0, 30*24*time.Hour)
	c.Lanes.validate(&p)
	c.Tor.validate(&p, c.Lanes)
	if c.LeakTest.Every != 0 {
		p.duration("leaktest.every", c.LeakTest.Every, 10*time.Second, 24*time.Hour)
	}
	for _, g := range [][2]string{{"control.admin_group", c.Control.AdminGroup}, {"control.view_group", c.Control.ViewGroup}} {
		if g[1] != "" && !groupName.MatchString(g[1]) {
			p.add(g[0], "%q is not a group name", g[1])
		}
	}
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	inRange(&p, "log.max_size_mib", c.Log.MaxSize, 1, 10_000)
	inRange(&p, "log.keep", c.Log.Keep, 1, 1000)
	c.Logs.validate(&p, c.Paths)
	return p
}

var (
	groupName     = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	interfaceName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,14}$`) // IFNAMSIZ is 16 with its final zero
	hostName      = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}\.?)*[a-zA-Z0-9]$|^[a-zA-Z0-9]$`)
)

func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return len(s) <= 253 && hostName.MatchString(s) && !strings.Contains(s, "..")
}

func (g Gateway) validate(p *problems) {
	if len(g.Listen) == 0 {
		p.add("gateway.listen", "is empty: clients could not sign in")
	}
	for i, l := range g.Listen {
		host, port, err := net.SplitHostPort(l)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err == nil && host != "" {
			_, err = netip.ParseAddr(host)
		}
		if err != nil || perr != nil || n == 0 {
			p.add(fmt.Sprintf("gateway.listen[%d]", i), "%q is not ADDRESS:PORT, such as [::]:4605", l)
		}
	}
	inRange(p, "gateway.max_connections", g.MaxConnections, 16, 1_000_000)
}

func (l Logs) validate(p *problems, paths Paths) {
	own := filepath.Join(paths.State, "logs")
	seen := map[string]bool{}
	for i, d := range l.Dirs {
		path := fmt.Sprintf("logs.dirs[%d]", i)
		clean := filepath.Clean(d)
		switch {
		case !filepath.IsAbs(d) || strings.ContainsRune(d, 0):
			p.add(path, "%q is not an absolute path", d)
		case clean == own || strings.HasPrefix(clean, own+"/"):
			p.add(path, "%s is where the log service keeps what it took in", d)
		case seen[clean]:
			p.add(path, "%s is there twice", d)
		}
		seen[clean] = true
	}
	if l.MaxAge != 0 {
		p.duration("logs.max_age", l.MaxAge, 24*time.Hour, 10*365*24*time.Hour)
	}
	if l.MaxSize != 0 {
		inRange(p, "logs.max_size_mib", l.MaxSize, 16, 16<<20)
	}
	p.duration("logs.slow_query", l.SlowQuery, time.Millisecond, time.Hour)
	p.duration("logs.query_time", l.QueryTime, time.Second, time.Minute)
}

func (a Auth) validate(p *problems) {
	p.duration("auth.access_ttl", a.AccessTTL, 10*time.Second, 24*time.Hour)
	p.duration("auth.refresh_ttl", a.RefreshTTL, time.Minute, 365*24*time.Hour)
	if a.RefreshTTL < a.AccessTTL {
		p.add("auth.refresh_ttl", "is shorter than auth.access_ttl")
	}
	inRange(p, "auth.argon2.memory_kib", a.Argon2.MemoryKiB, 8, 2<<20)
	inRange(p, "auth.argon2.time", a.Argon2.Time, 1, 100)
	inRange(p, "auth.argon2.threads", a.Argon2.Threads, 1, 64)
	if a.Argon2.MemoryKiB < 8*uint32(a.Argon2.Threads) {
		p.add("auth.argon2.memory_kib", "must be at least 8 times auth.argon2.threads (RFC 9106)")
	}
	if uint64(a.Argon2.MemoryKiB)*uint64(a.Argon2.Time) > 8<<20 {
		p.add("auth.argon2.time", "memory_kib times time is over %d: one sign-in would take minutes", 8<<20)
	}
	inRange(p, "auth.guard.per_account", a.Guard.PerAccount, 1, 1_000_000)
	inRange(p, "auth.guard.per_address", a.Guard.PerAddress, 1, 1_000_000)
	inRange(p, "auth.guard.global", a.Guard.Global, 1, 100_000_000)
	p.duration("auth.guard.window", a.Guard.Window, time.Second, 24*time.Hour)
}

func (l Lanes) validate(p *problems) {
	p.oneOf("lanes.wireguard", l.WireGuard, "auto", "kernel", "userspace")
	p.duration("lanes.keepalive", l.Keepalive, 0, 65535*time.Second)
	for i, port := range l.BlockedPorts {
		if port == 0 {
			p.add(fmt.Sprintf("lanes.blocked_ports[%d]", i), "0 is not a port")
		}
	}
	l.VPN.validate(p, "lanes.vpn")
	l.Tor.validate(p, "lanes.tor")
	if l.VPN.Interface == l.Tor.Interface {
		p.add("lanes.tor.interface", "is the same as lanes.vpn.interface")
	}
	if l.VPN.Port == l.Tor.Port {
		p.add("lanes.tor.port", "is the same as lanes.vpn.port")
	}
	if l.VPN.IPv4.Overlaps(l.Tor.IPv4) {
		p.add("lanes.tor.ipv4", "%s overlaps lanes.vpn.ipv4 %s", l.Tor.IPv4, l.VPN.IPv4)
	}
	if l.VPN.IPv6.Overlaps(l.Tor.IPv6) {
		p.add("lanes.tor.ipv6", "%s overlaps lanes.vpn.ipv6 %s", l.Tor.IPv6, l.VPN.IPv6)
	}
}

func (l Lane) validate(p *problems, path string) {
	if !interfaceName.MatchString(l.Interface) {
		p.add(path+".interface", "%q is not an interface name", l.Interface)
	}
	if l.Port == 0 {
		p.add(path+".port", "0 is not a port")
	}
	switch {
	case !l.IPv4.IsValid() || !l.IPv4.Addr().Is4():
		p.add(path+".ipv4", "is not an IPv4 prefix")
	case l.IPv4 != l.IPv4.Masked():
		p.add(path+".ipv4", "%s has host bits set; write %s", l.IPv4, l.IPv4.Masked())
	case l.IPv4.Bits() < 8 || l.IPv4.Bits() > 29: // a /30 holds the gateway and the leak test's device
		p.add(path+".ipv4", "/%d is outside /8 to /29", l.IPv4.Bits())
	}
	switch {
	case !l.IPv6.IsValid() || !l.IPv6.Addr().Is6() || l.IPv6.Addr().Is4In6():
		p.add(path+".ipv6", "is not an IPv6 prefix")
	case l.IPv6 != l.IPv6.Masked():
		p.add(path+".ipv6", "%s has host bits set; write %s", l.IPv6, l.IPv6.Masked())
	case l.IPv6.Bits() < 48 || l.IPv6.Bits() > 126:
		p.add(path+".ipv6", "/%d is outside /48 to /126", l.IPv6.Bits())
	}
	inRange(p, path+".mtu", l.MTU, 1280, 65_000)
	for i, a := range l.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			p.add(fmt.Sprintf("%s.dns[%d]", path, i), "%s is not a resolver's address", a)
		}
	}
}

func (t Tor) validate(p *problems, l Lanes) {
	if t.Binary == "" || strings.ContainsAny(t.Binary, "\x00\n") {
		p.add("tor.binary", "%q is not a program", t.Binary)
	}
	seen := map[uint16]string{}
	for _, port := range []struct {
		path string
		n    uint16
	}{{"tor.trans_port", t.TransPort}, {"tor.dns_port", t.DNSPort}, {"tor.page_port", t.PagePort}} {
		if port.n < 1024 {
			p.add(port.path, "%d is outside 1024 to 65535", port.n)
		}
		if other, taken := seen[port.n]; taken {
			p.add(port.path, "is the same as %s", other)
		}
		seen[port.n] = port.path
	}
	if u, err := url.Parse(t.CheckURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		p.add("tor.check_url", "%q is not an http or https URL", t.CheckURL)
	}
	p.duration("tor.probe_every", t.ProbeEvery, time.Second, time.Hour)
	for _, v := range []struct {
		path   string
		prefix netip.Prefix
		is4    bool
		bits   int
	}{{"tor.virtual_ipv4", t.VirtualIPv4, true, 16}, {"tor.virtual_ipv6", t.VirtualIPv6, false, 104}} {
		switch {
		case !v.prefix.IsValid() || v.prefix.Addr().Is4() != v.is4 || v.prefix.Masked() != v.prefix || v.prefix.Bits() > v.bits:
			p.add(v.path, "%s is not a network of at most /%d", v.prefix, v.bits)
		case v.prefix.Overlaps(l.VPN.IPv4) || v.prefix.Overlaps(l.VPN.IPv6) || v.prefix.Overlaps(l.Tor.IPv4) || v.prefix.Overlaps(l.Tor.IPv6):
			p.add(v.path, "%s overlaps a lane's prefix", v.prefix)
		}
	}
	for i, line := range t.ExtraTorrc {
		if word := torrcOwned(line); word != "" {
			p.add(fmt.Sprintf("tor.extra_torrc[%d]", i), "%s is for vpnd to set", word)
		}
		if strings.ContainsAny(line, "\r\n\x00") || strings.HasSuffix(strings.TrimRight(line, " \t"), "\\") {
			p.add(fmt.Sprintf("tor.extra_torrc[%d]", i), "is not one whole line")
		}
	}
}

// torrcOwned names the option of a torrc line that is vpnd's own, or "".
func torrcOwned(line string) string {
	word, _, _ := strings.Cut(strings.TrimLeft(strings.TrimSpace(line), "+/"), " ")
	word, _, _ = strings.Cut(word, "\t")
	for _, own := range []string{
		"TransPort", "DNSPort", "SocksPort", "NATDPort", "HTTPTunnelPort", "ControlPort", "ControlSocket", "CookieAuthentication", "CookieAuthFile",
		"DataDirectory", "User", "PidFile", "Log", "RunAsDaemon", "__LeaveStreamsUnattached", "ExitNodes", "StrictNodes",
		"UseBridges", "Bridge", "VirtualAddrNetworkIPv4", "VirtualAddrNetworkIPv6", "AutomapHostsOnResolve", "AutomapHostsSuffixes", "DisableNetwork", "%include",
	} {
		if strings.EqualFold(word, own) {
			return own
		}
	}
	return ""
}
