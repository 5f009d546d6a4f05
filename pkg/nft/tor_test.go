//go:build linux

package nft_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/nft"
)

const transPort, dnsPort, pagePort = 9040, 5353, 8503

var (
	torUp          = nft.State{VPN: nft.VPNUp, Tor: nft.TorUp}
	torMaintenance = nft.State{VPN: nft.VPNUp, Tor: nft.TorMaintenance}
	torBlocked     = up
)

func torConfig() nft.Config {
	cfg := testConfig()
	cfg.TransPort, cfg.DNSPort, cfg.PagePort = transPort, dnsPort, pagePort
	return cfg
}

// standIns listen on the ports of lane tor and answer with their own name, then
// echo.
func standIns(t testing.TB, w *world) {
	for _, gw := range []netip.Addr{gwTor4, gwTor6} {
		for name, port := range map[string]uint16{"trans": transPort, "dns": dnsPort, "page": pagePort} {
			var l net.Listener
			var u net.PacketConn
			addr := netip.AddrPortFrom(gw, port).String()
			must(t, w.server.Do(func() (err error) {
				if l, err = net.Listen("tcp", addr); err != nil {
					return err
				}
				u, err = net.ListenPacket("udp", addr)
				return err
			}))
			t.Cleanup(func() { _, _ = l.Close(), u.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer func() { _ = c.Close() }()
						_, _ = fmt.Fprintln(c, name)
						_, _ = io.Copy(c, c)
					}()
				}
			}()
			go func() {
				buf := make([]byte, 2048)
				for {
					_, peer, err := u.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = u.WriteTo([]byte(name+"\n"), peer)
				}
			}()
		}
	}
}

// answer says who answered, or "refused" when the network said so.
func answer(ns *netns.NS, network string, to netip.Addr, port uint16) string {
	got, err := exchange(ns, network, to, port, soon)
	switch {
	case told(err):
		return "refused"
	case err != nil:
		return err.Error()
	}
	return got
}

func TestLaneTorByState(t *testing.T) {
	w := newWorld(t, torConfig())
	everywhere(t, w)
	standIns(t, w)
	type try struct {
		network string
		to      string // site, gateway, public, device, other gateway
		port    uint16
	}
	tries := []try{
		{"tcp", "site", 443}, {"tcp", "site", 80}, {"tcp", "site", 53}, {"udp", "site", 53}, {"udp", "site", 80},
		{"udp", "site", dnsPort}, {"tcp", "site", transPort}, {"tcp", "site", pagePort},
		{"tcp", "public", 22}, {"tcp", "device", 80}, {"udp", "device", 80}, {"tcp", "other gateway", controlPort},
		{"tcp", "gateway", 53}, {"udp", "gateway", 53}, {"tcp", "gateway", 22}, {"tcp", "gateway", 80},
		// nobody dials the ports directly
		{"tcp", "gateway", transPort}, {"tcp", "gateway", dnsPort}, {"udp", "gateway", dnsPort}, {"tcp", "gateway", pagePort},
	}
	for _, s := range []struct {
		state  nft.State
		passes map[try]string
	}{
		{torBlocked, nil},
		{torMaintenance, map[try]string{{"tcp", "site", 80}: "page", {"tcp", "device", 80}: "page"}},
		{torUp, map[try]string{
			{"tcp", "site", 443}: "trans", {"tcp", "site", 80}: "trans", {"tcp", "site", 53}: "dns", {"udp", "site", 53}: "dns",
			{"tcp", "site", transPort}: "trans", {"tcp", "site", pagePort}: "trans",
			{"tcp", "public", 22}: "trans", {"tcp", "device", 80}: "trans", {"tcp", "other gateway", controlPort}: "trans",
			{"tcp", "gateway", 53}: "dns", {"udp", "gateway", 53}: "dns",
		}},
		{nft.State{}, nil},
	} {
		apply(t, w, s.state)
		families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
			addrs := map[string]netip.Addr{
				"site": pick(site4, site6), "gateway": pick(gwTor4, gwTor6), "public": pick(public4, public6),
				"device": pick(a4, a6), "other gateway": pick(gwVPN4, gwVPN6),
			}
			want, got := make(map[string]string), make(map[string]string)
			for _, try := range tries {
				name := fmt.Sprint(try)
				want[name] = "refused"
				if who, ok := s.passes[try]; ok {
					want[name] = who
				}
				got[name] = answer(w.clientT, try.network, addrs[try.to], try.port)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", s.state, diff)
			}
			wantReach(t, w.clientT, "tcp", pick(gwTor4, gwTor6), controlPort, pick(t4, t6))
			wantPing(t, w.clientT, pick(gwTor4, gwTor6))
			wantPingRefused(t, w.clientT, pick(site4, site6))
			// Lane vpn is not concerned, and reaches none of the ports.
			if s.state.VPN == nft.VPNUp {
				wantReach(t, w.clientA, "tcp", pick(site4, site6), 80, pick(public4, public6))
			}
			wantRefused(t, w.clientA, "tcp", pick(gwTor4, gwTor6), transPort)
			wantRefused(t, w.clientA, "udp", pick(gwTor4, gwTor6), dnsPort)
		})
		fresh(t, w, s.state)
	}
	if n := count(t, w, nft.Untranslated) + count(t, w, nft.Unmatched); n != 0 {
		t.Errorf("%d packets passed the locks before the last", n)
	}
}

func TestOpenFlowsAreCutWhenLaneTorLeavesUp(t *testing.T) {
	for _, next := range []nft.State{torBlocked, torMaintenance} {
		for _, inputOpen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, c_output alone %t", next.Tor, inputOpen), func(t *testing.T) {
				w := newWorld(t, torConfig())
				standIns(t, w)
				families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
					apply(t, w, torUp)
					tcp, udp := open(t, w, "tcp", pick(site4, site6), 80, "trans"), open(t, w, "udp", pick(site4, site6), 53, "dns")
					if got, err := tcp.say("still here", patient); err != nil || got != "still here" {
						t.Fatalf("echo before: %q, %v", got, err)
					}
					apply(t, w, next)
					if inputOpen {
						hole(t, w, "wg1", "c_input")
					}
					for name, c := range map[string]*conn{"tcp": tcp, "udp": udp} {
						got, err := c.say("still here?", silence)
						var timeout net.Error
						silent := errors.As(err, &timeout) && timeout.Timeout()
						if inputOpen && !silent || !inputOpen && !told(err) {
							t.Errorf("open %s flow: %q, %v", name, got, err)
						}
					}
				})
			})
		}
	}
}

// An attack: tor's DNSPort dies of a datagram that ends within the header of
// DNS, also when it belongs to a flow that began well.
func TestADatagramTooShortForDNSIsRefused(t *testing.T) {
	w := newWorld(t, torConfig())
	standIns(t, w)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		apply(t, w, torUp)
		good := open(t, w, "udp", pick(site4, site6), 53, "dns")
		for _, c := range []*conn{good, nil} {
			for _, short := range []string{"x", datagram[:10]} {
				if c == nil {
					fresh, err := dial(w.clientT, "udp", pick(site4, site6), 53, patient)
					must(t, err)
					defer fresh.Close()
					c = fresh
				}
				if got, err := c.say(short, soon); !told(err) {
					t.Errorf("%d bytes: %q, %v", len(short)+1, got, err) // a line end goes with it
				}
			}
		}
		if got, err := good.say(datagram, patient); err != nil || got != "dns" {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	})
}

// open opens a flow of lane tor and checks who answers.
func open(t *testing.T, w *world, network string, to netip.Addr, port uint16, who string) *conn {
	t.Helper()
	c, err := dial(w.clientT, network, to, port, patient)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	line := ""
	if network == "udp" {
		line = datagram
	}
	if got, err := c.say(line, patient); err != nil || got != who {
		t.Fatalf("%s to %s port %d: %q, %v, want %s", network, to, port, got, err, who)
	}
	return c
}

// hole lets everything from an interface through chains.
func hole(t *testing.T, w *world, iface string, chains ...string) {
	t.Helper()
	stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
		for _, chain := range chains {
			c.InsertRule(&nftables.Rule{
				Table: table, Chain: &nftables.Chain{Name: chain, Table: table},
				Exprs: append(ifnameIs(expr.MetaKeyIIFNAME, iface), &expr.Verdict{Kind: expr.VerdictAccept}),
			})
		}
	})
}

func TestNothingLeaksWhileLaneTorFlips(t *testing.T) {
	flips := 1000
	if testing.Short() {
		flips = 100
	}
	w := newWorld(t, torConfig())
	standIns(t, w)
	got := flipUnderTraffic(t, w, flips, nil)
	if got.tor != 0 || got.vpn != 0 || got.allowed == 0 {
		t.Errorf("leaked, or nothing was let through at all: %+v", got)
	}
	if n := count(t, w, nft.Untranslated); n != 0 {
		t.Errorf("%d packets were held by the last lock only", n)
	}
}

func TestLeaksOfLaneTorAreSeen(t *testing.T) {
	for _, c := range []struct {
		chains []string
		leaks  bool
	}{
		{[]string{"c_gate"}, false},
		{[]string{"c_forward", "c_egress"}, false},
		{[]string{"c_gate", "c_egress"}, false},
		{[]string{"c_gate", "c_forward", "c_egress"}, true},
	} {
		t.Run(fmt.Sprint(c.chains), func(t *testing.T) {
			w := newWorld(t, torConfig())
			got := flipUnderTraffic(t, w, 30, func(nft.State) { hole(t, w, "wg1", c.chains...) })
			if (got.tor != 0) != c.leaks {
				t.Errorf("%d packets of lane tor left, want some: %t", got.tor, c.leaks)
			}
		})
	}
}

func TestPortsOfLaneTorAreAllOrNone(t *testing.T) {
	for _, change := range []func(*nft.Config){
		func(c *nft.Config) { c.PagePort = 0 },
		func(c *nft.Config) { c.DNSPort = 53 },
		func(c *nft.Config) { c.TransPort = c.PagePort },
		func(c *nft.Config) { c.TransPort = controlPort },
	} {
		cfg := torConfig()
		change(&cfg)
		if _, err := nft.New(cfg); !errors.Is(err, fault.Invalid) {
			t.Errorf("%d %d %d: got %v, want %s", cfg.TransPort, cfg.DNSPort, cfg.PagePort, err, fault.Invalid)
		}
	}
}

func TestTheConnectionIsReopenedAfterAnError(t *testing.T) {
	w := newWorld(t, torConfig())
	apply(t, w, torUp)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.fw.Apply(ctx, torBlocked); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	apply(t, w, torBlocked)
	fresh(t, w, torBlocked)
}

// BenchmarkApplyTorFlip takes lane tor from up to maintenance and back.
func BenchmarkApplyTorFlip(b *testing.B) {
	w := newWorld(b, torConfig())
	apply(b, w, torUp)
	for b.Loop() {
		apply(b, w, torMaintenance)
		apply(b, w, torUp)
	}
}
