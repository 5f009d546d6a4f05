//go:build linux

package lanes_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// torWorld is a device in lane tor and a site behind the server that lane tor
// must not reach.
type torWorld struct {
	*server
	device, site *client
	inside, out  [2]string // by family: the device's addresses in lane tor, the site's
}

func newTorWorld(t *testing.T) torWorld {
	t.Helper()
	s := newServer(t)
	s.run()
	w := torWorld{server: s, device: s.newClient(), site: s.newClient(), out: [2]string{"198.18.3.2", "fd18:3::2"}}
	_, err := s.sync(w.device.peer, w.site.peer)
	must(t, err)
	tor := s.lane(api.Tor)
	torKey, err := wgdev.ParsePublicKey(tor.PublicKey)
	must(t, err)
	psk, err := wgdev.ParsePresharedKey(w.device.peer.PresharedKey)
	must(t, err, w.device.dev.Upsert(t.Context(), wgdev.Peer{
		PublicKey: torKey, PresharedKey: psk, Endpoint: netip.AddrPortFrom(netip.MustParseAddr("198.18.2.1"), uint16(tor.Port)),
		AllowedIPs: []netip.Prefix{
			netip.MustParsePrefix("10.9.0.1/32"), netip.MustParsePrefix("fd76:706e:6409::1/128"),
			netip.MustParsePrefix("198.18.3.0/24"), netip.MustParsePrefix("fd18:3::/64"),
		},
	}))
	device, site := w.device.in(), w.site.in()
	for i, bits := range []int{16, 64} {
		a := w.device.peer.Tor[i]
		w.inside[i] = a.String()
		must(t, device.AddAddr("wgc0", netip.PrefixFrom(a, bits)))
	}
	must(t, device.AddRoute(netip.MustParsePrefix("198.18.3.0/24"), netip.Addr{}, "wgc0"),
		device.AddRoute(netip.MustParsePrefix("fd18:3::/64"), netip.Addr{}, "wgc0"),
		s.links.AddAddr("cable3", netip.MustParsePrefix("fd18:3::1/64")), site.AddAddr("eth0", netip.MustParsePrefix("fd18:3::2/64")),
		site.AddRoute(netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("198.18.3.1"), "eth0"))
	return w
}

// toSite tells by family whether the device's datagrams get to the site.
func (w torWorld) toSite() (got [2]bool) {
	w.t.Helper()
	for i := range got {
		got[i] = passes(w.t, w.device.ns, w.inside[i], w.site.ns, w.out[i])
	}
	return got
}

// dropTable is a stranger's flush.
func (w torWorld) dropTable() {
	w.t.Helper()
	l := w.role.Config.Lanes
	wall, err := nft.New(nft.Config{
		VPN:         nft.Lane{Interface: "wgl0", Prefix4: l.VPN.IPv4, Prefix6: l.VPN.IPv6, Gateway4: l.VPN.IPv4.Addr().Next(), Gateway6: l.VPN.IPv6.Addr().Next()},
		Tor:         nft.Lane{Interface: "wgl1", Prefix4: l.Tor.IPv4, Prefix6: l.Tor.IPv6, Gateway4: l.Tor.IPv4.Addr().Next(), Gateway6: l.Tor.IPv6.Addr().Next()},
		ControlPort: 4605, NetNS: w.ns.Fd(),
	})
	must(w.t, err, wall.Remove(w.t.Context()))
}

var neither, both = [2]bool{}, [2]bool{true, true}

// TestTorIsSealedWithoutTableAndService is the promise of the second lock: with
// vpnd dead and all rules flushed nothing from lane tor is forwarded.
func TestTorIsSealedWithoutTableAndService(t *testing.T) {
	w := newTorWorld(t)
	if got := w.toSite(); got != neither {
		t.Errorf("forwarded although all is in place: %v", got)
	}
	w.kill() // nobody repairs
	w.dropTable()
	if !passes(t, w.device.ns, w.inside[0], w.ns, "10.9.0.1") {
		t.Fatal("the gateway is not reached, so the rest proves nothing")
	}
	if got := w.toSite(); got != neither {
		t.Errorf("forwarded without the table: %v", got)
	}
	must(t, w.links.Unprohibit("wgl1"))
	if got := w.toSite(); got != both {
		t.Errorf("it was not the routing rule that kept it: %v", got)
	}
	w.run()
	if got := w.toSite(); !w.sealed() || got != neither {
		t.Errorf("not sealed after the restart: %v", got)
	}
}

// TestStrangersRoutingRuleOpensNothing is the first lock's promise: who puts a
// routing rule before lane tor's has passed the second, and nothing leaves yet.
func TestStrangersRoutingRuleOpensNothing(t *testing.T) {
	for name, iface := range map[string]string{"of the lane": "wgl1", "of all interfaces": ""} {
		t.Run(name, func(t *testing.T) {
			w := newTorWorld(t)
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				r := netlink.NewRule()
				r.Family, r.Priority, r.IifName, r.Table = family, 0, iface, unix.RT_TABLE_MAIN
				must(t, w.ns.Do(func() error { return netlink.RuleAdd(r) }))
			}
			if got := w.toSite(); got != neither {
				t.Errorf("forwarded past the routing rule: %v", got)
			}
			if !w.sealed() {
				t.Error("the routing rule is gone")
			}
			w.kill() // nobody repairs
			w.dropTable()
			if got := w.toSite(); got != both {
				t.Errorf("the stranger's rule leads nowhere, so the rest proves nothing: %v", got)
			}
		})
	}
}

// QUIC falls back to TCP when its first datagram is refused. The kernel would tell
// a device of no more than a few refusals in a row.
func TestEveryRefusalReachesTheDevice(t *testing.T) {
	w := newTorWorld(t)
	// refused tells whether the device hears within a second that its datagram was.
	refused := func(family int) bool {
		var c net.Conn
		must(t, w.device.ns.Do(func() (err error) {
			c, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(w.inside[family])}, &net.UDPAddr{IP: net.ParseIP(w.out[family]), Port: 443})
			return err
		}))
		defer c.Close()
		_, err := c.Write([]byte("x"))
		must(t, err, c.SetReadDeadline(time.Now().Add(time.Second)))
		_, err = c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	eventually(t, "the tunnel", func() bool { return refused(0) })
	const attempts = 30
	for family := range w.out {
		lost := 0
		for range attempts {
			if !refused(family) {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("to %s: of %d refusals %d never came", w.out[family], attempts, lost)
		}
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
