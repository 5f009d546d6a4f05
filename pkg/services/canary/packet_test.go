package canary

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// valid is the slow oracle of checksums: data that holds a right one is, as one
// long number, divisible by 2^16-1 and not zero.
func valid(data []byte) bool {
	if len(data)%2 == 1 {
		data = append(slices.Clone(data), 0)
	}
	n := new(big.Int).SetBytes(data)
	return n.Sign() != 0 && new(big.Int).Mod(n, big.NewInt(0xffff)).Sign() == 0
}

func pseudo(p path, proto byte, data []byte) []byte {
	b := slices.Concat(p.src.AsSlice(), p.dst.AsSlice())
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return slices.Concat(b, []byte{0, 0, 0, proto}, data)
}

// wellFormed checks a whole packet: lengths and checksums.
func wellFormed(t *testing.T, b []byte) {
	t.Helper()
	var p path
	var proto byte
	var data []byte
	if b[0]>>4 == 4 {
		h, err := ipv4.ParseHeader(b)
		if err != nil || h.TotalLen != len(b) || !valid(b[:h.Len]) || h.TTL != 64 {
			t.Fatalf("header %v, %v of % x", h, err, b)
		}
		if h.FragOff != 0 || h.Flags&ipv4.MoreFragments != 0 {
			return
		}
		src, _ := netip.AddrFromSlice(h.Src.To4())
		dst, _ := netip.AddrFromSlice(h.Dst.To4())
		p, proto, data = path{src, dst}, byte(h.Protocol), b[h.Len:]
	} else {
		h, err := ipv6.ParseHeader(b)
		if err != nil || h.PayloadLen != len(b)-40 || h.HopLimit != 64 {
			t.Fatalf("header %v, %v of % x", h, err, b)
		}
		if h.NextHeader == unix.IPPROTO_FRAGMENT {
			return
		}
		src, _ := netip.AddrFromSlice(h.Src)
		dst, _ := netip.AddrFromSlice(h.Dst)
		p, proto, data = path{src, dst}, byte(h.NextHeader), b[40:]
	}
	transport(t, p, proto, data)
}

func transport(t *testing.T, p path, proto byte, data []byte) {
	t.Helper()
	covered := pseudo(p, proto, data)
	if proto == unix.IPPROTO_ICMP {
		covered = data
	}
	if !valid(covered) {
		t.Errorf("checksum of protocol %d from %s to %s: % x", proto, p.src, p.dst, data)
	}
	if proto == unix.IPPROTO_UDP && int(binary.BigEndian.Uint16(data[4:])) != len(data) {
		t.Errorf("length of a datagram: % x", data)
	}
}

func TestEchoIsWhatTheLibraryMakes(t *testing.T) {
	data := []byte("odd")
	four := path{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("192.0.2.1")}
	six := path{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("2001:db8::1")}
	want4, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 9, Data: data}}).Marshal(nil)
	must(t, err)
	if got := four.echo(7, 9, data); !bytes.Equal(got, want4) {
		t.Errorf("% x, want % x", got, want4)
	}
	want6, err := (&icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: 7, Seq: 9, Data: data}}).
		Marshal(icmp.IPv6PseudoHeader(six.src.AsSlice(), six.dst.AsSlice()))
	must(t, err)
	if got := six.echo(7, 9, data); !bytes.Equal(got, want6) {
		t.Errorf("% x, want % x", got, want6)
	}
}

func TestAnswersAreRead(t *testing.T) {
	for _, p := range []path{
		{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("192.0.2.1")},
		{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("2001:db8::1")},
	} {
		router := netip.MustParseAddr("10.9.0.1")
		unreachable, tooFar := byte(icmp4Unreachable), byte(icmp4Expired)
		if p.src.Is6() {
			router, unreachable, tooFar = netip.MustParseAddr("fd00::1"), icmp6Unreachable, icmp6Expired
		}
		syn := p.packet(unix.IPPROTO_TCP, 1, p.tcp(777, 80, 5, 0, tcpSYN))
		dgram := p.packet(unix.IPPROTO_UDP, 1, p.udp(777, 443, []byte("x")))
		ping := p.packet(p.icmp(), 1, p.echo(777, 1, nil))
		part := p.fragments(unix.IPPROTO_UDP, 1, p.udp(777, 443, make([]byte, 40)))
		read := func(b []byte) ip { v, _ := readIP(b, false); return v }
		for name, tc := range map[string]struct {
			packet []byte
			want   verdict
		}{
			"syn-ack":             {tcpAnswer(read(syn), tcpSYN|tcpACK), reply},
			"reset":               {tcpAnswer(read(syn), tcpRST|tcpACK), reset},
			"datagram":            {udpAnswer(read(dgram)), reply},
			"echo":                {echoReply(read(ping)), reply},
			"refused syn":         {icmpAnswer(router, syn, unreachable), refused},
			"refused datagram":    {icmpAnswer(router, dgram, unreachable), refused},
			"refused echo":        {icmpAnswer(router, ping, unreachable), refused},
			"refused fragment":    {icmpAnswer(router, part[0], unreachable), refused},
			"expired":             {icmpAnswer(router, dgram, tooFar), expired},
			"cut quote":           {icmpAnswer(router, dgram[:len(dgram)-1], unreachable), refused},
			"later fragment":      {part[1], ""},
			"refused second part": {icmpAnswer(router, part[1], unreachable), ""},
			"an echo request":     {ping, ""},
			"cut":                 {syn[:len(syn)-1], ""},
			"empty":               {nil, ""},
		} {
			a, ok := readAnswer(tc.packet)
			if ok != (tc.want != "") || ok && (a.what != tc.want || a.token != 777 || a.dst != p.src) {
				t.Errorf("%s: %+v, %v; want %q", name, a, ok, tc.want)
			}
			if a.tcp != (name == "syn-ack") {
				t.Errorf("%s: tcp %v", name, a.tcp)
			}
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, p := range []path{
		{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("192.0.2.1")},
		{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("2001:db8::1")},
	} {
		syn := p.packet(unix.IPPROTO_TCP, 1, p.tcp(777, 80, 5, 0, tcpSYN|tcpACK))
		f.Add(syn)
		f.Add(p.packet(p.icmp(), 1, p.echo(777, 1, nil)))
		f.Add(icmpAnswer(p.dst, syn, 1))
		f.Add(icmpAnswer(p.dst, syn, 3))
		for _, b := range p.fragments(unix.IPPROTO_UDP, 1, p.udp(777, 443, make([]byte, 40))) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		a, ok := readAnswer(b)
		if !bytes.Equal(before, b) {
			t.Fatal("the packet was changed")
		}
		if ok && (!a.src.IsValid() || !a.dst.IsValid() || a.what == "" || a.src.Is4() != (b[0]>>4 == 4)) {
			t.Fatalf("%+v", a)
		}
	})
}
