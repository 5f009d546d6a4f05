//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/lab"
)

// laneSwitches is how often the lane changes under traffic.
const laneSwitches = 50

// TestALiveTunnelChangesItsLaneAndLeaksNothing needs no Tor network: what lane
// tor does not carry, it refuses, and its handshakes are made in every state.
func TestALiveTunnelChangesItsLaneAndLeaksNothing(t *testing.T) {
	w := newWorld(t, 1, "")
	w.createUser("alice")
	laptop := lab.Client(1)
	w.connect(laptop, "alice", "laptop")
	before := w.onlySession()
	uplink, err := w.Machine(laptop).Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	stop := w.traffic(laptop)
	for i := range laneSwitches {
		w.run(0, "", laptop, "vpn", "lane", []string{"tor", "vpn"}[i%2])
		switch i {
		case 0:
			if l := w.laneState(laptop); l.State == "" || l.State == "up" {
				t.Errorf("lane tor, without Tor, is %+v", l)
			}
			if seen, err := w.get(laptop, page(lab.TargetV4, "/ip")); err == nil && isAddr(seen) { // and not why there is none
				t.Errorf("in lane tor a page was reached: it saw %s", seen)
			}
		case 1, laneSwitches - 1:
			for target, want := range map[netip.Addr]netip.Addr{lab.TargetV4: w.Machine(lab.Server).IPv4(), lab.TargetV6: w.Machine(lab.Server).IPv6()} {
				if seen, err := w.get(laptop, page(target, "/ip")); err != nil || seen != want.String() {
					t.Errorf("in lane vpn %s saw %q, %v", target, seen, err)
				}
			}
		}
	}
	stop()
	uplink.Stop()
	leaked, ports := w.uncovered(uplink.Packets())
	t.Logf("%d packets on the uplink, to each lane %v, %d leaked", len(uplink.Packets()), ports, len(leaked))
	if len(leaked) > 0 {
		t.Errorf("%d packets leaked, the first %s", len(leaked), leaked[0])
	}
	if uplink.Dropped() > 0 || ports[51820] < laneSwitches || ports[51821] < laneSwitches {
		t.Errorf("%d packets were not captured, to each lane went %v: the test shows nothing", uplink.Dropped(), ports)
	}
	if l := w.laneState(laptop); l.State != "up" {
		t.Errorf("lane vpn is %+v", l)
	}
	if after := w.onlySession(); after.ID != before.ID || !after.OpenedAt.Equal(before.OpenedAt) {
		t.Errorf("session %s of %s is now %s of %s", before.ID, before.OpenedAt, after.ID, after.OpenedAt)
	}
	log, err := w.Machine(laptop).ReadFile("/var/lib/vpn-client/agent.log")
	if n := strings.Count(string(log), `"session opened"`); err != nil || n != 1 {
		t.Errorf("the client asked for a session %d times, %v", n, err)
	}

	// The capture sees what the tunnel's rules keep in.
	again, err := w.Machine(laptop).Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	w.run(0, "", laptop, "vpn", "down")
	stop = w.traffic(laptop)
	eventually(t, 10*time.Second, func() error {
		if leaked, _ := w.uncovered(again.Packets()); len(leaked) == 0 {
			return fmt.Errorf("nothing leaks without a tunnel: the test shows nothing")
		}
		return nil
	})
	stop()
	again.Stop()
}

// isAddr tells the target's answer from a page of ours.
func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// onlySession gives the one open session.
func (w *world) onlySession() sessions.Session {
	w.t.Helper()
	l, err := sessions.List.Call(w.t.Context(), w.control(), &sessions.ListRequest{Limit: 10})
	if err != nil || len(l.Items) != 1 {
		w.t.Fatalf("sessions: %+v, %v", l, err)
	}
	return l.Items[0]
}

// laneState is what the client was told of its lane.
func (w *world) laneState(machine string) client.LaneState {
	w.t.Helper()
	var st struct {
		Tunnel struct {
			LaneState client.LaneState `json:"lane_state"`
		}
	}
	out := w.run(0, "", machine, "vpn", "status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		w.t.Fatalf("%v in %s", err, out)
	}
	return st.Tunnel.LaneState
}

// traffic sends pings, datagrams of old and new sockets and connection attempts
// to the internet, in both families, until it is stopped.
func (w *world) traffic(machine string) (stop func()) {
	w.t.Helper()
	m := w.Machine(machine)
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	often := func(fn func()) {
		all.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				fn()
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	for _, ip := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		pings, err := m.Ping(ctx, ip, 20*time.Millisecond)
		if err != nil {
			w.t.Fatal(err)
		}
		all.Go(func() { <-ctx.Done(); pings.Stop() })
		old, err := m.DialContext(ctx, "udp", netip.AddrPortFrom(ip, 9999).String())
		if err != nil {
			w.t.Fatal(err)
		}
		all.Go(func() { <-ctx.Done(); _ = old.Close() })
		often(func() { _, _ = old.Write([]byte("an old socket")) })
		often(func() {
			if c, err := m.DialContext(ctx, "udp", netip.AddrPortFrom(ip, 9999).String()); err == nil {
				_, _ = c.Write([]byte("a new socket"))
				_ = c.Close()
			}
		})
		often(func() {
			short, end := context.WithTimeout(ctx, 100*time.Millisecond)
			defer end()
			if c, err := m.DialContext(short, "tcp", netip.AddrPortFrom(ip, 80).String()); err == nil {
				_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				_ = c.Close()
			}
		})
	}
	return sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
}

// uncovered gives what left the client and was neither WireGuard nor the API,
// and counts the former by port.
func (w *world) uncovered(packets []lab.Packet) (leaked []lab.Packet, ports map[uint16]int) {
	server := w.Machine(lab.Server)
	ports = map[uint16]int{}
	for _, p := range packets {
		toServer := p.Dst == server.IPv4() || p.Dst == server.IPv6()
		neighbours := p.Dst.IsMulticast() || p.Proto == unix.IPPROTO_ICMPV6 && p.Dst != lab.TargetV6
		switch {
		case !p.Out || neighbours:
		case toServer && p.Proto == unix.IPPROTO_UDP && (p.DstPort == 51820 || p.DstPort == 51821):
			ports[p.DstPort]++
		case toServer && p.Proto == unix.IPPROTO_TCP && p.DstPort == 4605:
		default:
			leaked = append(leaked, p)
		}
	}
	return leaked, ports
}
