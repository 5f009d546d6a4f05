//go:build linux

package lanes_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
	"vpnd/pkg/nft"
	"vpnd/pkg/services/lanes"
	"vpnd/pkg/wgdev"
)

func (s *server) sealed() bool {
	s.t.Helper()
	ok, err := s.links.Prohibited("wgl1")
	must(s.t, err)
	return ok
}

// in gives a handle on a client's interfaces.
func (c *client) in() *link.Links {
	c.t.Helper()
	var links *link.Links
	must(c.t, c.ns.Do(func() (err error) { links, err = link.Open(); return err }))
	c.t.Cleanup(links.Close)
	return links
}

// passes tells whether a datagram from one of a namespace's addresses arrives at
// an address of another namespace.
func passes(t testing.TB, from *netns.NS, source string, to *netns.NS, addr string) bool {
	t.Helper()
	var in *net.UDPConn
	var out net.Conn
	must(t, to.Do(func() (err error) { in, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr)}); return err }))
	defer in.Close()
	must(t, from.Do(func() (err error) {
		out, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(source)}, in.LocalAddr().(*net.UDPAddr))
		return err
	}))
	defer out.Close()
	for range 20 { // the first may have to wait for a handshake
		_, _ = out.Write([]byte("x")) // a refusal of the one before is no arrival
		_ = in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := in.Read(make([]byte, 1)); err == nil {
			return true
		}
	}
	return false
}

// TestTorIsSealedWithoutTableAndService is the promise of the second lock: with
// vpnd dead and all rules flushed nothing from lane tor is forwarded.
func TestTorIsSealedWithoutTableAndService(t *testing.T) {
	s := newServer(t)
	s.run()
	device, site := s.newClient(), s.newClient() // at 198.18.2.2 and 198.18.3.2
	_, err := s.sync(device.peer, site.peer)
	must(t, err)
	tor := s.lane(api.Tor)
	torKey, err := wgdev.ParsePublicKey(tor.PublicKey)
	must(t, err)
	psk, err := wgdev.ParsePresharedKey(device.peer.PresharedKey)
	must(t, err)
	source := device.peer.Tor[0]
	must(t, device.dev.Upsert(t.Context(), wgdev.Peer{
		PublicKey: torKey, PresharedKey: psk, Endpoint: netip.AddrPortFrom(netip.MustParseAddr("198.18.2.1"), uint16(tor.Port)),
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32"), netip.MustParsePrefix("198.18.3.0/24")},
	}))
	devLinks := device.in()
	must(t, devLinks.AddAddr("wgc0", netip.PrefixFrom(source, 16)),
		devLinks.AddRoute(netip.MustParsePrefix("198.18.3.0/24"), netip.Addr{}, "wgc0"),
		site.in().AddRoute(netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("198.18.3.1"), "eth0"))
	toSite := func() bool { return passes(t, device.ns, source.String(), site.ns, "198.18.3.2") }
	if toSite() {
		t.Error("forwarded although all is in place")
	}

	s.kill() // nobody repairs
	l := s.role.Config.Lanes
	wall, err := nft.New(nft.Config{
		VPN:         nft.Lane{Interface: "wgl0", Prefix4: l.VPN.IPv4, Prefix6: l.VPN.IPv6, Gateway4: l.VPN.IPv4.Addr().Next(), Gateway6: l.VPN.IPv6.Addr().Next()},
		Tor:         nft.Lane{Interface: "wgl1", Prefix4: l.Tor.IPv4, Prefix6: l.Tor.IPv6, Gateway4: l.Tor.IPv4.Addr().Next(), Gateway6: l.Tor.IPv6.Addr().Next()},
		ControlPort: 4605, NetNS: s.ns.Fd(),
	})
	must(t, err, wall.Remove(t.Context()))
	if !passes(t, device.ns, source.String(), s.ns, "10.9.0.1") {
		t.Fatal("the gateway is not reached, so the rest proves nothing")
	}
	if toSite() {
		t.Error("forwarded without the table")
	}
	must(t, s.links.Unprohibit("wgl1"))
	if !toSite() {
		t.Error("it was not the routing rule that kept it")
	}
	s.run()
	if !s.sealed() || toSite() {
		t.Error("not sealed after the restart")
	}
}

func TestLostSealIsRepairedAndEndsWithTheLane(t *testing.T) {
	s := newServer(t)
	s.run()
	if !s.sealed() {
		t.Fatal("not sealed")
	}
	must(t, s.links.Unprohibit("wgl1"))
	start := time.Now()
	eventually(t, "the rule", s.sealed)
	t.Logf("repaired after %s", time.Since(start))
	eventually(t, "the report", func() bool { return s.said("firewall.repaired") != "" })
	if e := s.said("firewall.repaired"); !strings.Contains(e, "routing rule of wgl1") {
		t.Errorf("event %q", e)
	}
	s.stop()
	if !s.sealed() {
		t.Error("the seal went with the service")
	}
	must(t, s.ns.Do(func() error { return lanes.Teardown(t.Context(), s.role.Config, s.role.RunDir) }))
	if s.sealed() {
		t.Error("the seal outlived the lane")
	}
}
