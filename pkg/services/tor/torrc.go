package tor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vpnd/pkg/config"
)

// paths are the files of the service.
type paths struct{ state, run string }

func (p paths) wish() string     { return filepath.Join(p.state, "state.json") }
func (p paths) settings() string { return filepath.Join(p.state, "settings.json") }
func (p paths) bridges() string  { return filepath.Join(p.state, "bridges.json") }
func (p paths) journal() string  { return filepath.Join(p.run, "streams.journal") }
func (p paths) socks() string    { return filepath.Join(p.run, "socks.sock") }
func (p paths) pid() string      { return filepath.Join(p.state, "tor.pid") }
func (p paths) data() string     { return filepath.Join(p.state, "data") }
func (p paths) notice() string   { return filepath.Join(p.state, "notice.log") }
func (p paths) output() string   { return filepath.Join(p.state, "output.log") }
func (p paths) torrc() string    { return filepath.Join(p.run, "torrc") }
func (p paths) defaults() string { return filepath.Join(p.run, "torrc-defaults") } // empty: the host's is not ours
func (p paths) socket() string   { return filepath.Join(p.run, "control.sock") }
func (p paths) cookie() string   { return filepath.Join(p.run, "cookie") }

// torrc is the configuration of tor on the gateway addresses.
func torrc(c config.Tor, p paths, gateways []netip.Addr, isolation string, bridgeLines []string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by vpnd; changes are lost. Add lines with tor.extra_torrc in vpnd.toml.")
	line("ClientOnly 1\nRunAsDaemon 0\nSafeLogging 1\n__LeaveStreamsUnattached 1")
	line("SocksPort unix:%s", quote(p.socks())) // for 'vpnctl tor check'; no device reaches it
	line("DataDirectory %s", quote(p.data()))
	line("Log notice file %s", p.notice()) // quotes would be part of the name; spaces may be
	line("ControlSocket %s", quote(p.socket()))
	line("CookieAuthentication 1\nCookieAuthFile %s", quote(p.cookie()))
	apart := "IsolateClientAddr"
	if isolation == byDestination {
		apart += " IsolateDestAddr IsolateDestPort"
	}
	for _, gw := range gateways {
		line("TransPort %s %s", netip.AddrPortFrom(gw, c.TransPort), apart)
		line("DNSPort %s IsolateClientAddr", netip.AddrPortFrom(gw, c.DNSPort))
	}
	line("AutomapHostsOnResolve 1\nAutomapHostsSuffixes .onion")
	line("VirtualAddrNetworkIPv4 %s", c.VirtualIPv4)
	line("VirtualAddrNetworkIPv6 [%s]/%d", c.VirtualIPv6.Addr(), c.VirtualIPv6.Bits())
	for _, extra := range append(slices.Clone(bridgeLines), c.ExtraTorrc...) {
		line("%s", extra)
	}
	// tor has no way to say which configuration it runs; a name that only relays
	// use tells it.
	text := b.String()
	return text + "Nickname " + mark(text) + "\n"
}

// mark is a nickname made of the text.
func mark(text string) string { return "v" + hash(text)[:16] }

// markOf finds the mark in a torrc.
func markOf(torrc string) string {
	return strings.TrimSpace(torrc[strings.LastIndex(torrc, "Nickname ")+len("Nickname "):])
}

// quote makes a path a value that tor reads as one.
func quote(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}

// portTaken tells which address tor could not bind because somebody else has
// it. Other errors are left for tor to report.
func portTaken(c config.Tor, gateways []netip.Addr) string {
	for _, gw := range gateways {
		trans, dns := netip.AddrPortFrom(gw, c.TransPort), netip.AddrPortFrom(gw, c.DNSPort)
		if l, err := net.Listen("tcp", trans.String()); err == nil {
			_ = l.Close()
		} else if errors.Is(err, unix.EADDRINUSE) {
			return trans.String()
		}
		if l, err := net.ListenPacket("udp", dns.String()); err == nil {
			_ = l.Close()
		} else if errors.Is(err, unix.EADDRINUSE) {
			return dns.String()
		}
	}
	return ""
}
