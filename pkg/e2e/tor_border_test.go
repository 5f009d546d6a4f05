//go:build linux

package e2e_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
)

// border records, as the internet sees it, what the server sends there.
type border struct {
	w       *torWorld
	ctx     context.Context // of the test that watches
	capture *lab.Capture
}

// watchBorder watches until the test ends.
func watchBorder(t *testing.T, w *torWorld) *border {
	t.Helper()
	b := &border{w: w, ctx: t.Context()}
	b.capture = b.open(t)
	return b
}

func (b *border) open(t *testing.T) *lab.Capture {
	t.Helper()
	c, err := b.w.Machine(lab.Internet).Capture(b.ctx, b.w.Machine(lab.Server).Uplink())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// turn gives what left since the last turn and should not have. A new capture
// begins before the old one ends, so nothing is missed in between.
func (b *border) turn(t *testing.T) []lab.Packet {
	t.Helper()
	old := b.capture
	b.capture = b.open(t)
	old.Stop()
	if n := old.Dropped(); n != 0 {
		t.Errorf("the capture lost %d packets: it proves nothing", n)
	}
	return slices.DeleteFunc(old.Packets(), b.fine)
}

// nothing fails the test when something leaked since the last turn.
func (b *border) nothing(t *testing.T, when string) {
	t.Helper()
	if bad := b.turn(t); len(bad) > 0 {
		t.Errorf("%d packets leaked %s, the first: %s", len(bad), when, bad[0])
	}
}

// Where the private network's relays are, and where the server's link to its
// router is.
var (
	relays4 = netip.MustParsePrefix("192.0.2.0/24")
	relays6 = netip.MustParsePrefix("2001:db8:99::/64")
	link6   = netip.MustParsePrefix("fd18::/64")
)

// fine tells whether a packet may be seen at the border: tor's to a relay, an
// answer to a client's WireGuard or API packet, or the link's own.
func (b *border) fine(p lab.Packet) bool {
	if p.Out || p.Src.IsLinkLocalUnicast() || p.Dst.IsMulticast() {
		return true
	}
	server, client := b.w.Machine(lab.Server), b.w.Machine(laptop)
	if p.Src != server.IPv4() && p.Src != server.IPv6() {
		return false
	}
	switch {
	case p.Dst == client.IPv4() || p.Dst == client.IPv6():
		return p.Proto == unix.IPPROTO_UDP && (p.SrcPort == 51820 || p.SrcPort == 51821) ||
			p.Proto == unix.IPPROTO_TCP && p.SrcPort == 4605 ||
			p.Proto == unix.IPPROTO_ICMP || p.Proto == unix.IPPROTO_ICMPV6 // "no WireGuard here", while it is killed
	case relays4.Contains(p.Dst) || relays6.Contains(p.Dst):
		return p.Proto == unix.IPPROTO_TCP && (p.DstPort == 9001 || p.DstPort == 9030)
	}
	return p.Proto == unix.IPPROTO_ICMPV6 && link6.Contains(p.Dst)
}
