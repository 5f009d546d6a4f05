//go:build linux

package nft_test

import (
	"context"
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"vpnd/pkg/lab/netns"
	"vpnd/pkg/nft"
)

// In the test world client T is lane tor's canary and client B that of lane vpn.

func counted(t testing.TB, fw *nft.Firewall) nft.Canary {
	t.Helper()
	c, err := fw.Canary(context.Background())
	must(t, err)
	return c
}

// settled waits until everything written before has been dealt with: a packet of
// another device of the lane has come out of the host.
func settled(t *testing.T, w *world, s *sniffer) {
	t.Helper()
	before := s.seen(markEnd4)
	eventually(t, "an honest packet arrives", func() bool {
		write(t, w.wg0, udpPacket(a4, markEnd4, 4001, 53))
		return s.seen(markEnd4) > before
	})
}

// attack sends packets of every kind as the canaries do.
func attack(t *testing.T, w *world) {
	t.Helper()
	for _, c := range []struct {
		lane *os.File
		src  []netip.Addr
		dst  []netip.Addr
	}{{w.wg1, []netip.Addr{t4, t6}, []netip.Addr{markTor4, markTor6}}, {w.wg0, []netip.Addr{b4, b6}, []netip.Addr{markVPN4, markVPN6}}} {
		for i, src := range c.src {
			for n := range uint16(10) {
				for _, p := range [][]byte{
					udpPacket(src, c.dst[i], 20000+n, 443), udpPacket(src, c.dst[i], 21000+n, 53),
					synPacket(src, c.dst[i], 20000+n, 443), echoPacket(src, c.dst[i], 300+n), fragments(udpPacket(src, c.dst[i], 22000+n, 443), n)[0],
				} {
					write(t, c.lane, p)
				}
			}
		}
	}
}

// visit uses what the canaries may, and tries what they may not.
func visit(t *testing.T, w *world) {
	t.Helper()
	for _, c := range []struct {
		ns  *netns.NS
		gws []netip.Addr
		own []netip.Addr
	}{{w.clientT, []netip.Addr{gwTor4, gwTor6}, []netip.Addr{t4, t6}}, {w.clientB, []netip.Addr{gwVPN4, gwVPN6}, []netip.Addr{b4, b6}}} {
		for i, gw := range c.gws {
			wantReach(t, c.ns, "tcp", gw, controlPort, c.own[i])
			wantPing(t, c.ns, gw)
			for _, network := range []string{"tcp", "udp"} {
				_, _ = exchange(c.ns, network, gw, hostPort, silence)
			}
		}
	}
}

const hostPort = 2222

// hostServices listen where devices may not go.
func hostServices(t *testing.T, w *world) {
	for _, gw := range []netip.Addr{gwTor4, gwTor6, gwVPN4, gwVPN6} {
		serveTCP(t, w.server, gw, controlPort)
		serveTCP(t, w.server, gw, hostPort)
		serveUDP(t, w.server, gw, hostPort)
	}
}

func TestTheCanaryIsCountedOnlyWhereItLeaks(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(*testing.T, *world)
		leaks  nft.Canary // only zero or not counts
	}{
		{"as it should be", func(*testing.T, *world) {}, nft.Canary{}},
		{"lane tor, all locks of the table", func(t *testing.T, w *world) {
			hole(t, w, "wg1", "c_gate", "c_forward", "c_egress")
		}, nft.Canary{LeftTor: 1}},
		{"lane tor, all but the last lock", func(t *testing.T, w *world) {
			hole(t, w, "wg1", "c_gate", "c_forward")
		}, nft.Canary{}},
		{"lane tor, translated", func(t *testing.T, w *world) {
			hole(t, w, "wg1", "c_gate", "c_forward")
			stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
				c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: "c_srcnat", Table: table},
					Exprs: append(ifnameIs(expr.MetaKeyOIFNAME, "up0"), &expr.Masq{})})
			})
		}, nft.Canary{LeftTor: 1}},
		{"lane vpn, untranslated", func(t *testing.T, w *world) {
			stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
				for _, name := range []string{"c_srcnat", "c_egress"} {
					c.FlushChain(&nftables.Chain{Name: name, Table: table})
				}
			})
		}, nft.Canary{LeftVPN: 1}},
		{"host services of both", func(t *testing.T, w *world) {
			hole(t, w, "wg0", "c_input")
			hole(t, w, "wg1", "c_input")
		}, nft.Canary{ReachedVPN: 1, ReachedTor: 1}},
		{"the table that decides is gone", func(t *testing.T, w *world) {
			stranger(t, w, func(c *nftables.Conn, table *nftables.Table) { c.DelTable(table) })
		}, nft.Canary{LeftVPN: 1, LeftTor: 1, ReachedVPN: 1, ReachedTor: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, torConfig())
			standIns(t, w)
			hostServices(t, w)
			s := newSniffer(t, w)
			for _, state := range []nft.State{torUp, torMaintenance, torBlocked} {
				apply(t, w, state)
				before := counted(t, w.fw)
				c.damage(t, w)
				attack(t, w)
				visit(t, w)
				_, _ = exchange(w.clientT, "tcp", site4, 80, silence) // redirected, by state
				_, _ = exchange(w.clientT, "udp", site6, 53, silence)
				if c.name != "the table that decides is gone" { // whose translation brings it out
					settled(t, w, s)
				}
				after := counted(t, w.fw)
				got := nft.Canary{
					LeftVPN: rose(before.LeftVPN, after.LeftVPN), LeftTor: rose(before.LeftTor, after.LeftTor),
					ReachedVPN: rose(before.ReachedVPN, after.ReachedVPN), ReachedTor: rose(before.ReachedTor, after.ReachedTor),
				}
				if got != c.leaks {
					t.Errorf("%s: got %+v (%+v, before %+v), want %+v", state, got, after, before, c.leaks)
				}
			}
		})
	}
}

func rose(before, after uint64) uint64 {
	if after > before {
		return 1
	}
	return 0
}

func TestTheCanarysCountsGoOnWithANewTable(t *testing.T) {
	w := newWorld(t, testConfig())
	hostServices(t, w)
	apply(t, w, up)
	leak := func() {
		hole(t, w, "wg1", "c_input")
		_, _ = exchange(w.clientT, "udp", gwTor4, hostPort, soon)
	}
	leak()
	first := counted(t, w.fw).ReachedTor
	if first == 0 {
		t.Fatal("nothing counted")
	}
	stranger(t, w, func(c *nftables.Conn, _ *nftables.Table) { c.FlushRuleset() })
	if got := counted(t, w.fw).ReachedTor; got != first {
		t.Errorf("without a table: %d, want %d", got, first)
	}
	apply(t, w, up)
	leak()
	if got := counted(t, w.fw).ReachedTor; got != first+1 {
		t.Errorf("after a new table: %d, want %d", got, first+1)
	}
	// Another run of ours counts from its own beginning.
	cfg := testConfig()
	cfg.NetNS = w.server.Fd()
	fw, err := nft.New(cfg)
	must(t, err)
	if got := counted(t, fw); got != (nft.Canary{}) {
		t.Errorf("a new Firewall begins with %+v", got)
	}
	leak()
	if got := counted(t, fw); got != (nft.Canary{ReachedTor: 1}) {
		t.Errorf("got %+v", got)
	}
}

func TestDamageToTheCanarysTableIsRepaired(t *testing.T) {
	for name, change := range map[string]func(*nftables.Conn, *nftables.Table){
		"table deleted": func(c *nftables.Conn, table *nftables.Table) { c.DelTable(table) },
		"chain flushed": func(c *nftables.Conn, table *nftables.Table) {
			c.FlushChain(&nftables.Chain{Name: "c_left", Table: table})
		},
		"chain added": func(c *nftables.Conn, table *nftables.Table) {
			c.AddChain(&nftables.Chain{Name: "theirs", Table: table})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testConfig())
			apply(t, w, up)
			stranger(t, w, func(c *nftables.Conn, _ *nftables.Table) {
				change(c, &nftables.Table{Name: nft.DefaultTable + "_canary", Family: nftables.TableFamilyINet})
			})
			if d := check(t, w); d.OK() {
				t.Error("not found")
			}
			apply(t, w, up)
			fresh(t, w, up)
		})
	}
}
