//go:build linux

package nft_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"vpnd/pkg/nft"
)

var (
	up   = nft.State{VPN: nft.VPNUp}
	down = nft.State{VPN: nft.VPNDown}
)

func apply(t testing.TB, w *world, s nft.State) {
	t.Helper()
	_, err := w.fw.Apply(context.Background(), s)
	must(t, err)
}

func count(t testing.TB, w *world, r nft.Reason) uint64 {
	t.Helper()
	all, err := w.fw.Counters(context.Background())
	must(t, err)
	c, ok := all[r]
	if !ok {
		t.Fatalf("no counter %s in %v", r, all)
	}
	return c.Packets
}

// families runs a test for IPv4 and IPv6.
func families(t *testing.T, run func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr)) {
	t.Run("ipv4", func(t *testing.T) { run(t, func(v4, _ netip.Addr) netip.Addr { return v4 }) })
	t.Run("ipv6", func(t *testing.T) { run(t, func(_, v6 netip.Addr) netip.Addr { return v6 }) })
}

// everywhere starts the same servers on all addresses of a world.
func everywhere(t testing.TB, w *world) {
	for _, a := range []netip.Addr{site4, site6} {
		for _, port := range []uint16{80, 25} {
			serveTCP(t, w.internet, a, port)
			serveUDP(t, w.internet, a, port)
		}
	}
	for _, a := range []netip.Addr{gwVPN4, gwVPN6, gwTor4, gwTor6, public4, public6} {
		for _, port := range []uint16{controlPort, 22} {
			serveTCP(t, w.server, a, port)
			serveUDP(t, w.server, a, port)
		}
	}
	for _, a := range []netip.Addr{a4, a6} {
		serveTCP(t, w.clientA, a, 80)
		serveUDP(t, w.clientA, a, 80)
	}
	for _, a := range []netip.Addr{b4, b6} {
		serveTCP(t, w.clientB, a, 80)
		serveUDP(t, w.clientB, a, 80)
	}
	for _, a := range []netip.Addr{t4, t6} {
		serveTCP(t, w.clientT, a, 80)
		serveUDP(t, w.clientT, a, 80)
	}
	for _, a := range []netip.Addr{lan4, lan6} {
		serveTCP(t, w.lan, a, 80)
	}
}

func TestLaneVPNReachesTheInternetBehindTheServersAddress(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	apply(t, w, up)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		site, public := pick(site4, site6), pick(public4, public6)
		wantReach(t, w.clientA, "tcp", site, 80, public)
		wantReach(t, w.clientA, "udp", site, 80, public)
		wantReach(t, w.clientB, "tcp", site, 80, public)
		wantPing(t, w.clientA, site)
	})
	if n := count(t, w, nft.Untranslated); n != 0 {
		t.Errorf("%d packets were about to leave with a device's address", n)
	}
}

func TestLaneVPNReachesPrivateNetworksBehindTheServer(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	apply(t, w, up)
	wantReach(t, w.clientA, "tcp", lan4, 80, netip.MustParseAddr("192.168.77.1"))
	wantReach(t, w.clientA, "tcp", lan6, 80, netip.MustParseAddr("fd77::1"))
}

func TestRefusalsReachTheDeviceAtOnce(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	apply(t, w, up)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		site := pick(site4, site6)
		t.Run("smtp", func(t *testing.T) {
			wantRefused(t, w.clientA, "tcp", site, 25)
			wantReach(t, w.clientA, "udp", site, 25, pick(public4, public6))
		})
		t.Run("device to device", func(t *testing.T) {
			wantRefused(t, w.clientA, "tcp", pick(b4, b6), 80)
			wantRefused(t, w.clientA, "udp", pick(b4, b6), 80)
			wantPingRefused(t, w.clientA, pick(b4, b6))
		})
		t.Run("lane to lane", func(t *testing.T) {
			wantRefused(t, w.clientA, "tcp", pick(t4, t6), 80)
			wantRefused(t, w.clientA, "udp", pick(t4, t6), 80)
			wantRefused(t, w.clientT, "tcp", pick(a4, a6), 80)
			wantRefused(t, w.clientT, "udp", pick(a4, a6), 80)
		})
		t.Run("lane tor", func(t *testing.T) {
			wantRefused(t, w.clientT, "tcp", site, 80)
			wantRefused(t, w.clientT, "udp", site, 80)
			wantPingRefused(t, w.clientT, site)
		})
		t.Run("cloud metadata", func(t *testing.T) {
			metadata := pick(netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254"))
			wantRefused(t, w.clientA, "tcp", metadata, 80)
			wantRefused(t, w.clientA, "udp", metadata, 80)
		})
		t.Run("lane vpn down", func(t *testing.T) {
			apply(t, w, down)
			defer apply(t, w, up)
			wantRefused(t, w.clientA, "tcp", site, 80)
			wantRefused(t, w.clientA, "udp", site, 80)
			wantPingRefused(t, w.clientA, site)
		})
	})
	for _, r := range []nft.Reason{nft.BlockedPort, nft.PeerToPeer, nft.TorRefused, nft.VPNRefused, nft.BlockedDestination} {
		if count(t, w, r) == 0 {
			t.Errorf("counter %s is zero", r)
		}
	}
	if n := count(t, w, nft.Unmatched); n != 0 {
		t.Errorf("%d packets met no rule of their own", n)
	}
}

func TestControlPortAnswersInEveryState(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	for _, s := range []nft.State{down, up} {
		t.Run(s.String(), func(t *testing.T) {
			apply(t, w, s)
			families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
				wantReach(t, w.clientA, "tcp", pick(gwVPN4, gwVPN6), controlPort, pick(a4, a6))
				wantReach(t, w.clientT, "tcp", pick(gwTor4, gwTor6), controlPort, pick(t4, t6))
				wantPing(t, w.clientA, pick(gwVPN4, gwVPN6))
				wantPing(t, w.clientT, pick(gwTor4, gwTor6))
			})
		})
	}
}

func TestNothingElseOfTheHostIsReachableFromALane(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	for _, s := range []nft.State{down, up} {
		t.Run(s.String(), func(t *testing.T) {
			apply(t, w, s)
			families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
				gwVPN, gwTor, public := pick(gwVPN4, gwVPN6), pick(gwTor4, gwTor6), pick(public4, public6)
				// another service, the same port of another protocol, another address, the other lane
				wantRefused(t, w.clientA, "tcp", gwVPN, 22)
				wantRefused(t, w.clientA, "udp", gwVPN, controlPort)
				wantRefused(t, w.clientA, "tcp", public, controlPort)
				wantRefused(t, w.clientA, "tcp", gwTor, controlPort)
				wantRefused(t, w.clientT, "tcp", gwTor, 22)
				wantRefused(t, w.clientT, "udp", gwTor, controlPort)
				wantRefused(t, w.clientT, "tcp", public, controlPort)
				wantRefused(t, w.clientT, "tcp", gwVPN, controlPort)
				wantPingRefused(t, w.clientT, public)
			})
		})
	}
	if count(t, w, nft.HostService) == 0 {
		t.Error("counter host_service is zero")
	}
}

func TestStrangersReachNeitherGatewaysNorDevices(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	apply(t, w, up)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		for _, gw := range []netip.Addr{pick(gwVPN4, gwVPN6), pick(gwTor4, gwTor6)} {
			before := count(t, w, nft.OutsideGateway)
			defer func() {
				if got := count(t, w, nft.OutsideGateway) - before; got < 2 {
					t.Errorf("%s: counter outside_gateway grew by %d, want a SYN and a datagram at least", gw, got)
				}
			}()
			wantSilence(t, w.internet, "tcp", gw, controlPort)
			wantSilence(t, w.internet, "udp", gw, 22)
		}
		wantSilence(t, w.internet, "tcp", pick(a4, a6), 80)
		wantSilence(t, w.internet, "udp", pick(a4, a6), 80)
		wantSilence(t, w.internet, "tcp", pick(t4, t6), 80)
		wantReach(t, w.internet, "tcp", pick(public4, public6), controlPort, pick(router4, router6))
	})
	if n := count(t, w, nft.Untranslated); n != 0 {
		t.Errorf("%d answers to strangers were held at the last moment", n)
	}
}

func TestHostReachesItsGatewaysButNoDevice(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	apply(t, w, up)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		for _, gw := range []netip.Addr{pick(gwVPN4, gwVPN6), pick(gwTor4, gwTor6)} {
			wantReach(t, w.server, "tcp", gw, 22, gw)
		}
		for _, device := range []netip.Addr{pick(a4, a6), pick(t4, t6)} {
			if got, err := exchange(w.server, "tcp", device, 80, silence); err == nil {
				t.Errorf("the host reached %s and got %q", device, got)
			}
		}
		wantReach(t, w.server, "tcp", pick(site4, site6), 80, pick(public4, public6))
	})
	if count(t, w, nft.HostToDevice) == 0 {
		t.Error("counter host_to_device is zero")
	}
}

func TestPeerToPeerLetsDevicesOfLaneVPNTalkAndNobodyElse(t *testing.T) {
	cfg := testConfig()
	cfg.PeerToPeer = true
	w := newWorld(t, cfg)
	everywhere(t, w)
	apply(t, w, up)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		wantReach(t, w.clientA, "tcp", pick(b4, b6), 80, pick(a4, a6))
		wantReach(t, w.clientB, "udp", pick(a4, a6), 80, pick(b4, b6))
		wantRefused(t, w.clientA, "tcp", pick(t4, t6), 80)
		wantRefused(t, w.clientT, "tcp", pick(a4, a6), 80)
	})
	apply(t, w, down)
	wantRefused(t, w.clientA, "tcp", b4, 80)
}

func TestEstablishedFlowsStopWhenLaneVPNGoesDown(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		apply(t, w, up)
		site := pick(site4, site6)
		tcp, err := dial(w.clientA, "tcp", site, 80, patient)
		must(t, err)
		defer func() { _ = tcp.Close() }()
		_, err = tcp.say("", patient)
		must(t, err)
		if got, err := tcp.say("still here", patient); err != nil || got != "still here" {
			t.Fatalf("echo before: %q, %v", got, err)
		}
		udp, err := dial(w.clientA, "udp", site, 80, patient)
		must(t, err)
		defer func() { _ = udp.Close() }()
		_, err = udp.say("hello", patient)
		must(t, err)

		apply(t, w, down)
		if got, err := tcp.say("still here?", soon); !told(err) {
			t.Errorf("open TCP connection: %q, %v, want it refused", got, err)
		}
		if got, err := udp.say("hello?", soon); !told(err) {
			t.Errorf("open UDP flow: %q, %v, want it refused", got, err)
		}

		apply(t, w, up)
		if _, err := udp.say("hello again", patient); err != nil {
			t.Errorf("UDP flow after coming up again: %v", err)
		}
	})
}

func TestSpoofedSourcesNeverLeave(t *testing.T) {
	t.Run("as applied", func(t *testing.T) {
		w := newWorld(t, testConfig())
		apply(t, w, up)
		spoof(t, w)
	})
	// The forward chain is a lock of its own, and the others do not hide its loss.
	t.Run("forward chain alone", func(t *testing.T) {
		w := newWorld(t, testConfig())
		apply(t, w, up)
		stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
			for _, chain := range []string{"c_pre", "c_egress"} {
				c.FlushChain(&nftables.Chain{Name: chain, Table: table})
			}
		})
		spoof(t, w)
	})
}

// spoof sends packets from lane vpn that claim addresses of others.
func spoof(t *testing.T, w *world) {
	t.Helper()
	s := newSniffer(t, w)
	spoofs := []struct{ src, dst netip.Addr }{
		{netip.MustParseAddr("10.66.0.9"), markVPN4}, {t4, markVPN4}, {site4, markVPN4},
		{netip.MustParseAddr("fd66::9"), markVPN6}, {t6, markVPN6}, {site6, markVPN6},
	}
	before := count(t, w, nft.Spoofed)
	for _, p := range spoofs {
		write(t, w.wg0, udpPacket(p.src, p.dst, 4000, 53))
		write(t, w.wg0, synPacket(p.src, p.dst, 4000, 443))
	}
	// the last packet is honest: when it has arrived, the others had their chance
	write(t, w.wg0, udpPacket(a4, markEnd4, 4001, 53))
	eventually(t, "the honest packet arrives", func() bool { return s.seen(markEnd4) == 1 })
	if n := s.seen(markVPN4, markVPN6); n != 0 {
		t.Errorf("%d packets with a stranger's source left", n)
	}
	if got := count(t, w, nft.Spoofed) - before; got != uint64(2*len(spoofs)) {
		t.Errorf("counter spoofed grew by %d, want %d", got, 2*len(spoofs))
	}
}

func TestADeviceCannotClaimAnAddressOfTheServer(t *testing.T) {
	w := newWorld(t, testConfig())
	apply(t, w, up)
	s := newSniffer(t, w)
	for _, p := range []struct{ src, dst netip.Addr }{
		{gwVPN4, markVPN4}, {public4, markVPN4}, {gwVPN6, markVPN6}, {public6, markVPN6},
	} {
		write(t, w.wg0, udpPacket(p.src, p.dst, 4000, 53))
	}
	write(t, w.wg0, udpPacket(a4, markEnd4, 4001, 53))
	eventually(t, "the honest packet arrives", func() bool { return s.seen(markEnd4) == 1 })
	if n := s.seen(markVPN4, markVPN6); n != 0 {
		t.Errorf("%d packets with the server's source left", n)
	}
	if got := count(t, w, nft.Spoofed); got != 4 {
		t.Errorf("counter spoofed is %d, want 4", got)
	}
}

// Without the table everything below is possible: what the other tests see
// refused is refused by the table, not by the world they run in.
func TestTheWorldIsOpenWithoutTheTable(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	families(t, func(t *testing.T, pick func(v4, v6 netip.Addr) netip.Addr) {
		a, b, tor, site := pick(a4, a6), pick(b4, b6), pick(t4, t6), pick(site4, site6)
		wantReach(t, w.clientA, "tcp", b, 80, a)
		wantReach(t, w.clientA, "udp", tor, 80, a)
		wantReach(t, w.clientT, "tcp", a, 80, tor)
		wantReach(t, w.clientT, "tcp", site, 80, tor)
		wantReach(t, w.clientA, "tcp", site, 25, a)
		wantReach(t, w.clientA, "tcp", pick(public4, public6), 22, a)
		wantReach(t, w.clientT, "udp", pick(gwVPN4, gwVPN6), 22, tor)
		wantReach(t, w.internet, "tcp", pick(gwTor4, gwTor6), 22, pick(router4, router6))
		wantReach(t, w.internet, "tcp", a, 80, pick(router4, router6))
		wantReach(t, w.server, "tcp", tor, 80, pick(gwTor4, gwTor6))
		wantPing(t, w.clientT, site)
	})
}

func TestSMTPIsRefusedAlsoInFragments(t *testing.T) {
	w := newWorld(t, testConfig())
	apply(t, w, up)
	s := newSniffer(t, w)
	for _, syn := range [][]byte{synPacket(a4, markVPN4, 4000, 25), synPacket(a6, markVPN6, 4000, 25)} {
		for _, f := range fragments(syn, 77) {
			write(t, w.wg0, f)
		}
	}
	for _, f := range fragments(udpPacket(a4, markEnd4, 4001, 53), 78) {
		write(t, w.wg0, f)
	}
	eventually(t, "an honest fragmented packet arrives", func() bool { return s.seen(markEnd4) > 0 })
	if n := s.seen(markVPN4, markVPN6); n != 0 {
		t.Errorf("%d packets to port 25 left", n)
	}
	if n := count(t, w, nft.BlockedPort); n != 2 {
		t.Errorf("counter blocked_port is %d, want 2", n)
	}
}

func TestSegmentSizeFitsTheTunnel(t *testing.T) {
	w := newWorld(t, testConfig())
	const mtu = 1420
	setMTU(t, w.server, "wg0", mtu)
	apply(t, w, up)
	for _, c := range []struct {
		site netip.Addr
		want int
	}{{site4, mtu - 40}, {site6, mtu - 60}} {
		var l net.Listener
		must(t, w.internet.Do(func() (err error) {
			l, err = net.Listen("tcp", netip.AddrPortFrom(c.site, 8080).String())
			return err
		}))
		defer func() { _ = l.Close() }()
		client, err := dial(w.clientA, "tcp", c.site, 8080, patient)
		must(t, err)
		defer func() { _ = client.Close() }()
		far, err := l.Accept()
		must(t, err)
		defer func() { _ = far.Close() }()
		for name, got := range map[string]int{"client": segmentSize(t, client.Conn), "far side": segmentSize(t, far)} {
			if got > c.want {
				t.Errorf("%s: the %s sends segments of %d bytes, want at most %d", c.site, name, got, c.want)
			}
		}
	}
}

func segmentSize(t *testing.T, c net.Conn) (size int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	var sockErr error
	must(t, raw.Control(func(fd uintptr) {
		size, sockErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	}))
	must(t, sockErr)
	return size
}

func TestOtherForwardingOfTheHostGoesOn(t *testing.T) {
	w := newWorld(t, testConfig())
	everywhere(t, w)
	check := func(t *testing.T) {
		t.Helper()
		wantReach(t, w.lan, "tcp", site4, 80, lan4)
		wantReach(t, w.lan, "tcp", site6, 80, lan6)
		wantReach(t, w.internet, "tcp", lan4, 80, router4)
		wantReach(t, w.lan, "tcp", site4, 25, lan4)
	}
	check(t)
	for _, s := range []nft.State{down, up} {
		apply(t, w, s)
		check(t)
	}
	must(t, w.fw.Remove(context.Background()))
	check(t)
}
