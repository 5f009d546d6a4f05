//go:build linux

package client_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/client/agentapi"
	"vpnd/pkg/lab"
	"vpnd/pkg/link"
)

// laneChanges is how often the lane changes under traffic.
const laneChanges = 50

// traffic sends all sorts of packets to the internet until it is stopped: pings,
// datagrams of old and new sockets and connection attempts, in both families.
func (s *site) traffic() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var all sync.WaitGroup
	for _, ip := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		pings, err := s.client.Ping(ctx, ip, 20*time.Millisecond)
		if err != nil {
			s.t.Fatal(err)
		}
		all.Go(func() { <-ctx.Done(); pings.Stop() })
		old, err := s.client.DialContext(ctx, "udp", netip.AddrPortFrom(ip, 9999).String())
		if err != nil {
			s.t.Fatal(err)
		}
		all.Go(func() {
			defer old.Close()
			for ctx.Err() == nil {
				_, _ = old.Write([]byte("an old socket"))
				pause(ctx, 4*time.Millisecond)
			}
		})
		all.Go(func() {
			for ctx.Err() == nil {
				if c, err := s.client.DialContext(ctx, "udp", netip.AddrPortFrom(ip, 9999).String()); err == nil {
					_, _ = c.Write([]byte("a new socket"))
					_ = c.Close()
				}
				pause(ctx, 20*time.Millisecond)
			}
		})
		all.Go(func() {
			for ctx.Err() == nil {
				short, end := context.WithTimeout(ctx, 100*time.Millisecond)
				if c, err := s.client.DialContext(short, "tcp", netip.AddrPortFrom(ip, 80).String()); err == nil {
					_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
					_ = c.Close()
				}
				end()
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// pause is the pace of a sender.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// uncovered gives what left the client and was neither WireGuard nor the API.
func (s *site) uncovered(packets []lab.Packet) (leaked []lab.Packet, ports map[uint16]int) {
	server := s.lab.Machine(lab.Server)
	ports = map[uint16]int{}
	for _, p := range packets {
		toServer := p.Dst == server.IPv4() || p.Dst == server.IPv6()
		switch {
		case !p.Out || p.Dst.IsMulticast() || p.Proto == unix.IPPROTO_ICMPV6 && p.Dst != lab.TargetV6: // neighbours
		case toServer && p.Proto == unix.IPPROTO_UDP && (p.DstPort == 51820 || p.DstPort == 51821):
			ports[p.DstPort]++
		case toServer && p.Proto == unix.IPPROTO_TCP && p.DstPort == 4605:
		default:
			leaked = append(leaked, p)
		}
	}
	return leaked, ports
}

func TestALiveTunnelChangesItsLaneAndLeaksNothing(t *testing.T) {
	s := newSite(t)
	s.run("", "lane tor").exits(5).err(`not up`).err(`^hint: vpn up --lane tor$`).out("")
	s.run("", "lane").exits(0).out(`^Lane    vpn$`).out(`^Tunnel  down$`)
	s.run("", "up").exits(0)
	session := s.status().SessionID
	uplink, err := s.client.Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*lab.Capture // of the lanes, at the server
	for i, name := range []string{"wgs0", "wgs1"} {
		if ends[i], err = s.lab.Machine(lab.Server).Capture(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	stop := s.traffic()
	defer stop()
	lanes := []string{"tor", "vpn"}
	for i := range laneChanges {
		lane := lanes[i%2]
		s.run("", "lane "+lane).exits(0).out(`^Lane    ` + lane + `\b`).out(`^Tunnel  up$`)
	}
	s.wantFetch("10.8.0.2")
	stop()
	uplink.Stop()
	leaked, ports := s.uncovered(uplink.Packets())
	t.Logf("%d packets on the uplink, to each lane %v, %d leaked", len(uplink.Packets()), ports, len(leaked))
	if len(leaked) > 0 {
		t.Errorf("%d packets leaked, the first %s", len(leaked), leaked[0])
	}
	if uplink.Dropped() > 0 || ports[51820] < laneChanges || ports[51821] < laneChanges {
		t.Errorf("%d packets were not captured, to each lane went %v: the test shows nothing", uplink.Dropped(), ports)
	}
	// A connection keeps the address of the lane in which it was opened, and is
	// heard in no other.
	for i, lane := range []struct{ v4, v6 string }{{"10.8.0.2", "fd76:706e:6408::2"}, {"10.9.0.2", "fd76:706e:6409::2"}} {
		ends[i].Stop()
		heard := map[string]int{}
		for _, p := range ends[i].Packets() {
			if !p.Out {
				heard[p.Src.String()]++
			}
		}
		if heard[lane.v4] == 0 || heard[lane.v6] == 0 || len(heard) != 2 {
			t.Errorf("in lane %d the server heard %v, want %v", i, heard, lane)
		}
	}
	if st := s.status(); st.SessionID != session || st.State != agentapi.Up {
		t.Errorf("session %s is now %s, %s", session, st.SessionID, st.State)
	}
	s.until("what the server says of lane vpn", func(st agentapi.Status) bool { return st.LaneState.State == "up" })
	if n := s.order("calls vpn.initiate"); n != "1" {
		t.Errorf("%s sessions were opened", n)
	}

	// The capture sees what the rules keep in.
	again, err := s.client.Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	stop = s.traffic()
	s.removeRules()
	deadline := time.Now().Add(10 * time.Second)
	for leaked = nil; len(leaked) == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // between two looks
		leaked, _ = s.uncovered(again.Packets())
	}
	stop()
	again.Stop()
	if len(leaked) == 0 {
		t.Error("without the rules nothing leaks either: the test shows nothing")
	}
	s.run("", "down").exits(0)
	s.wantRestored()
	s.run("", "lane -o json").exits(0).out(`"lane": "vpn"`).out(`"tunnel": "down"`)
}

// removeRules takes away what leads traffic into the tunnel.
func (s *site) removeRules() {
	s.t.Helper()
	err := s.client.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			rules, err := h.RuleList(fam)
			if err != nil {
				return err
			}
			for _, r := range slices.DeleteFunc(rules, func(r netlink.Rule) bool { return r.Priority != link.RulePriorityTunnel }) {
				r.Family = fam
				if err := h.RuleDel(&r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
