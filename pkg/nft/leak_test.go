//go:build linux

package nft_test

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"

	"vpnd/pkg/nft"
)

// flood writes packets into the server's end of a lane, as if devices had sent
// them, until stopped. It counts what it wrote.
type flood struct {
	sent atomic.Int64
	stop chan struct{}
	done sync.WaitGroup
}

func startFlood(t testing.TB, lane *os.File, packets [][]byte) *flood {
	f := &flood{stop: make(chan struct{})}
	f.done.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-f.stop:
				return
			default:
			}
			// A full queue loses the packet, like a real interface.
			_, _ = lane.Write(packets[i%len(packets)])
			if sent := f.sent.Add(1); sent%256 == 0 {
				time.Sleep(time.Millisecond) // leave the others some of the machine
			}
		}
	})
	t.Cleanup(f.end)
	return f
}

func (f *flood) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.done.Wait()
}

// waitFor lets the flood write n more packets.
func (f *flood) waitFor(t testing.TB, n int64) {
	t.Helper()
	target, deadline := f.sent.Load()+n, time.Now().Add(10*time.Second)
	for f.sent.Load() < target {
		if time.Now().After(deadline) {
			t.Fatal("the generator is stuck")
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// everyKind makes packets of every kind that a device could try, from many
// addresses and ports of a lane to one address per family.
func everyKind(lane nft.Lane, dst4, dst6 netip.Addr) [][]byte {
	const flows = 64
	var all [][]byte
	for i := range uint16(flows) {
		src4, src6 := lane.Prefix4.Addr().As4(), lane.Prefix6.Addr().As16()
		src4[3], src6[15] = byte(10+i), byte(10+i)
		for _, c := range []struct{ src, dst netip.Addr }{
			{netip.AddrFrom4(src4), dst4}, {netip.AddrFrom16(src6), dst6},
		} {
			udp := udpPacket(c.src, c.dst, 20000+i, 443)
			all = append(all, udpPacket(c.src, c.dst, 21000+i, 53), synPacket(c.src, c.dst, 21000+i, 53), synPacket(c.src, c.dst, 21000+i, 80))
			all = append(all, udp, synPacket(c.src, c.dst, 20000+i, 443), echoPacket(c.src, c.dst, 300+i))
			all = append(all, fragments(udpPacket(c.src, c.dst, 30000+i, 53), 1000+i)...)
			all = append(all, fragments(synPacket(c.src, c.dst, 30000+i, 443), 2000+i)...)
			all = append(all, fragments(udp, 3000+i)[1], fragments(udp, 4000+i)[0]) // never complete
		}
	}
	return all
}

// leaks is what a run of flips let through.
type leaks struct {
	tor     int // packets of lane tor that arrived, ever
	vpn     int // packets of lane vpn that arrived while it was down
	allowed int // packets of lane vpn that arrived while it was up
}

// flipUnderTraffic applies random states, beginning with lane vpn down, while
// devices of both lanes send everything they can, and counts what arrives that
// must not. After every Apply it calls then, which may spoil the rules.
func flipUnderTraffic(t *testing.T, w *world, flips int, then func(nft.State)) leaks {
	t.Helper()
	cfg := testConfig()
	apply(t, w, down)
	s := newSniffer(t, w)
	tor := startFlood(t, w.wg1, everyKind(cfg.Tor, markTor4, markTor6))
	vpn := startFlood(t, w.wg0, everyKind(cfg.VPN, markVPN4, markVPN6))

	var closed []span
	downSince := time.Now()
	for range flips {
		state := nft.State{VPN: nft.VPNState(rand.N(2))}
		if w.torStates {
			state.Tor = nft.TorState(rand.N(3))
		}
		if state.VPN == nft.VPNUp && !downSince.IsZero() {
			closed = append(closed, span{downSince, time.Now()})
			downSince = time.Time{}
		}
		apply(t, w, state)
		if state.VPN == nft.VPNDown && downSince.IsZero() {
			downSince = time.Now()
		}
		if then != nil {
			then(state)
		}
		tor.waitFor(t, 20)
		vpn.waitFor(t, 20)
	}
	if !downSince.IsZero() {
		closed = append(closed, span{downSince, time.Now()})
	}
	tor.end()
	vpn.end()
	finish(t, w, s)

	got := leaks{tor: s.seen(markTor4, markTor6)}
	got.vpn, got.allowed = split(s.arrivals(markVPN4, markVPN6), closed)
	t.Logf("%d flips; %d packets sent in lane tor, %d in lane vpn: %+v", flips, tor.sent.Load(), vpn.sent.Load(), got)
	return got
}

// finish waits until everything that was sent has been captured: an honest
// packet comes after all others.
func finish(t *testing.T, w *world, s *sniffer) {
	t.Helper()
	apply(t, w, up)
	write(t, w.wg0, udpPacket(a4, markEnd4, 4001, 53))
	eventually(t, "the last packet arrives", func() bool { return s.seen(markEnd4) > 0 })
	if n := s.lost(t); n != 0 {
		t.Errorf("the capture lost %d packets: it proves nothing", n)
	}
}

// span is a time in which nothing may arrive.
type span struct{ from, to time.Time }

// split counts the arrivals inside and outside the spans.
func split(arrivals []time.Time, closed []span) (inside, outside int) {
	for _, at := range arrivals {
		if slices.ContainsFunc(closed, func(c span) bool { return at.After(c.from) && at.Before(c.to) }) {
			inside++
		} else {
			outside++
		}
	}
	return inside, outside
}

func TestNothingLeaksWhileStatesFlip(t *testing.T) {
	flips := 1000
	if testing.Short() {
		flips = 100
	}
	w := newWorld(t, testConfig())
	got := flipUnderTraffic(t, w, flips, nil)
	if got.tor != 0 || got.vpn != 0 {
		t.Errorf("leaked: %+v", got)
	}
	if got.allowed == 0 {
		t.Error("nothing arrived while lane vpn was up: the generator proves nothing")
	}
	if n := count(t, w, nft.Untranslated); n != 0 {
		t.Errorf("%d packets passed the forward chain and were held by the second lock only", n)
	}
}

func TestNothingLeaksWhileDamageIsRepaired(t *testing.T) {
	w := newWorld(t, testConfig())
	apply(t, w, down)
	// A foreign chain makes the next Apply replace the whole table.
	got := flipUnderTraffic(t, w, 150, func(nft.State) {
		stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
			c.AddChain(&nftables.Chain{Name: "foreign", Table: table})
		})
	})
	if got.tor != 0 || got.vpn != 0 {
		t.Errorf("leaked: %+v", got)
	}
	if got.allowed == 0 {
		t.Error("nothing arrived while lane vpn was up: the generator proves nothing")
	}
}

func TestFirstApplyStopsWhatRanBefore(t *testing.T) {
	w := newWorld(t, testConfig())
	cfg := testConfig()
	s := newSniffer(t, w)
	tor := startFlood(t, w.wg1, everyKind(cfg.Tor, markTor4, markTor6))
	vpn := startFlood(t, w.wg0, everyKind(cfg.VPN, markVPN4, markVPN6))
	var closed []span
	for range 30 {
		apply(t, w, down)
		since := time.Now()
		tor.waitFor(t, 50)
		vpn.waitFor(t, 50)
		closed = append(closed, span{since, time.Now()})
		must(t, w.fw.Remove(context.Background()))
		tor.waitFor(t, 50)
		vpn.waitFor(t, 50)
	}
	tor.end()
	vpn.end()
	finish(t, w, s)
	leaked, allowed := split(s.arrivals(markTor4, markTor6, markVPN4, markVPN6), closed)
	if leaked != 0 {
		t.Errorf("%d packets arrived after Apply had returned", leaked)
	}
	if allowed == 0 {
		t.Error("nothing arrived without a table: the generator proves nothing")
	}
}

// The measurement itself is measured: rules that leak must be seen to leak.
func TestLeaksAreSeen(t *testing.T) {
	t.Run("lane tor", func(t *testing.T) {
		w := newWorld(t, testConfig())
		got := flipUnderTraffic(t, w, 20, func(nft.State) { hole(t, w, "wg1", "c_gate", "c_forward", "c_egress") })
		if got.tor == 0 {
			t.Error("packets of lane tor left and were not seen")
		}
	})
	t.Run("lane tor, second lock", func(t *testing.T) {
		w := newWorld(t, testConfig())
		got := flipUnderTraffic(t, w, 20, func(nft.State) { hole(t, w, "wg1", "c_gate", "c_forward") })
		if got.tor != 0 || count(t, w, nft.Untranslated) == 0 {
			t.Errorf("the second lock did not hold: %+v", got)
		}
	})
	t.Run("lane vpn", func(t *testing.T) {
		w := newWorld(t, testConfig())
		got := flipUnderTraffic(t, w, 20, func(nft.State) { hole(t, w, "wg0", "c_forward") })
		if got.vpn == 0 {
			t.Error("packets of lane vpn left while it was down and were not seen")
		}
	})
	t.Run("no table", func(t *testing.T) {
		w := newWorld(t, testConfig())
		got := flipUnderTraffic(t, w, 20, func(nft.State) { must(t, w.fw.Remove(context.Background())) })
		if got.tor == 0 || got.vpn == 0 {
			t.Errorf("without a table packets left and were not seen: %+v", got)
		}
	})
}
