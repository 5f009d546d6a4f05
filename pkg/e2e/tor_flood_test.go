//go:build linux

package e2e_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"vpnd/pkg/lab"
)

// flood is a device that sends everything it can think of, all the time.
type flood struct {
	sent, failed, connected atomic.Int64
	socks                   []net.PacketConn
	raw4                    *ipv4.RawConn
	udp4, udp6              net.PacketConn
	icmp4, icmp6            net.PacketConn
	gre4, gre6, frag6       net.PacketConn
}

// Where a device sends: the targets, and a resolver of somebody's. None is a
// relay, so that a leak never looks like tor.
var (
	flooded4 = []netip.Addr{lab.TargetV4, lab.ResolverV4, netip.MustParseAddr("198.51.100.53")}
	flooded6 = []netip.Addr{lab.TargetV6, lab.ResolverV6, netip.MustParseAddr("2001:db8:53::53")}
)

// startFlood sends from the laptop until the test ends.
func startFlood(t *testing.T, w *torWorld) *flood {
	t.Helper()
	f := &flood{}
	err := w.Machine(laptop).Do(func() error {
		for _, s := range []struct {
			into          *net.PacketConn
			network, addr string
		}{
			{&f.udp4, "udp4", "0.0.0.0:0"}, {&f.udp6, "udp6", "[::]:0"},
			{&f.icmp4, "ip4:icmp", "0.0.0.0"}, {&f.icmp6, "ip6:ipv6-icmp", "::"},
			{&f.gre4, "ip4:47", "0.0.0.0"}, {&f.gre6, "ip6:47", "::"}, {&f.frag6, "ip6:44", "::"},
		} {
			c, err := net.ListenPacket(s.network, s.addr)
			if err != nil {
				return err
			}
			*s.into, f.socks = c, append(f.socks, c)
		}
		c, err := net.ListenPacket("ip4:udp", "0.0.0.0")
		if err != nil {
			return err
		}
		f.socks = append(f.socks, c)
		f.raw4, err = ipv4.NewRawConn(c)
		return err
	})
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	t.Cleanup(func() {
		stop()
		all.Wait()
		for _, c := range f.socks {
			_ = c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	all.Go(func() { f.datagrams(ctx) })
	for i := range 2 {
		all.Go(func() { f.connections(ctx, w.Machine(laptop), i) })
	}
	return f
}

// datagrams is everything but TCP, about 1,000 packets a second.
func (f *flood) datagrams(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := uint16(0); ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d4, d6 := flooded4[int(i)%3], flooded6[int(i)%3]
		for _, port := range []uint16{53, 443, 1024 + uint16(rand.N(200))} {
			payload := []byte("let me out")
			if port == 53 {
				payload = question("target.test")
			}
			f.count(f.udp4.WriteTo(payload, net.UDPAddrFromAddrPort(netip.AddrPortFrom(d4, port))))
			f.count(f.udp6.WriteTo(payload, net.UDPAddrFromAddrPort(netip.AddrPortFrom(d6, port))))
		}
		large := make([]byte, 3000) // three fragments
		f.count(f.udp4.WriteTo(large, net.UDPAddrFromAddrPort(netip.AddrPortFrom(d4, 443))))
		f.count(f.udp6.WriteTo(large, net.UDPAddrFromAddrPort(netip.AddrPortFrom(d6, 443))))
		f.echoes(d4, d6, i)
		f.count(f.gre4.WriteTo([]byte{0, 0, 8, 0}, &net.IPAddr{IP: d4.AsSlice()}))
		f.count(f.gre6.WriteTo([]byte{0, 0, 8, 0}, &net.IPAddr{IP: d6.AsSlice()}))
		f.pieces(d4, d6, i)
	}
}

func (f *flood) echoes(d4, d6 netip.Addr, seq uint16) {
	body := &icmp.Echo{ID: 7, Seq: int(seq), Data: []byte("let me out")}
	if b, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: body}).Marshal(nil); err == nil {
		f.count(f.icmp4.WriteTo(b, &net.IPAddr{IP: d4.AsSlice()}))
	}
	if b, err := (&icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: body}).Marshal(nil); err == nil {
		f.count(f.icmp6.WriteTo(b, &net.IPAddr{IP: d6.AsSlice()}))
	}
}

// pieces are fragments that never become whole: a first one and a later one.
func (f *flood) pieces(d4, d6 netip.Addr, id uint16) {
	udp := []byte{0x12, 0x34, 1, 187, 0, 100, 0, 0, 'l', 'e', 't', ' ', 'm', 'e', ' ', 'o'}
	for offset, more := range []bool{true, false} {
		h := &ipv4.Header{Version: 4, Len: 20, TotalLen: 20 + len(udp), TTL: 64, Protocol: 17, ID: int(id), Dst: d4.AsSlice(), FragOff: 2 * offset}
		next := []byte{17, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(next[2:], uint16(2*offset)<<3)
		binary.BigEndian.PutUint16(next[6:], id)
		if more {
			h.Flags = ipv4.MoreFragments
			next[3] |= 1
			h.ID++ // of another packet, so that the two never meet
			next[5] = 1
		}
		f.count(0, f.raw4.WriteTo(h, udp, nil))
		f.count(f.frag6.WriteTo(append(next, udp...), &net.IPAddr{IP: d6.AsSlice()}))
	}
}

// connections opens and closes TCP connections, a few dozen a second.
func (f *flood) connections(ctx context.Context, m *lab.Machine, i int) {
	for ctx.Err() == nil {
		i++
		to := flooded4[i%3]
		if i%2 == 0 {
			to = flooded6[i%3]
		}
		port := []uint16{80, 443, 53, 1024 + uint16(rand.N(200))}[i/2%4]
		once, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		c, err := m.DialContext(once, "tcp", netip.AddrPortFrom(to, port).String())
		cancel()
		f.sent.Add(1)
		if err == nil {
			f.connected.Add(1)
			_ = c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func (f *flood) count(_ int, err error) {
	if err != nil {
		f.failed.Add(1)
	} else {
		f.sent.Add(1)
	}
}
