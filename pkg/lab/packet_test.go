//go:build linux

package lab

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

var (
	ipv4UDP   = []byte("\x45\x00\x00\x20\x00\x01\x00\x00\x40\x11\x00\x00\xc6\x12\x01\x02\xcb\x00\x71\x0a\x12\x34\x00\x35\x00\x0c\x00\x00abcd")
	ipv4First = []byte("\x45\x00\x00\x20\x00\x01\x20\x00\x40\x11\x00\x00\xc6\x12\x01\x02\xcb\x00\x71\x0a\x12\x34\x00\x35\x00\x0c\x00\x00abcd")
	ipv4Later = []byte("\x45\x00\x00\x20\x00\x01\x00\x10\x40\x11\x00\x00\xc6\x12\x01\x02\xcb\x00\x71\x0a\x12\x34\x00\x35\x00\x0c\x00\x00abcd")
	ipv4Opts  = []byte("\x46\x00\x00\x20\x00\x01\x00\x00\x40\x06\x00\x00\xc6\x12\x01\x02\xcb\x00\x71\x0a\x01\x01\x01\x00\x12\x34\x00\x50\x00\x00\x00\x00")

	ipv6Addrs = "\xfd\x18\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02" + "\x20\x01\x0d\xb8\x00\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10"
	ipv6TCP   = []byte("\x60\x00\x00\x00\x00\x04\x06\x40" + ipv6Addrs + "\x12\x34\x00\x50")
	ipv6Hop   = []byte("\x60\x00\x00\x00\x00\x0c\x00\x40" + ipv6Addrs + "\x11\x00\x01\x04\x00\x00\x00\x00" + "\x12\x34\x00\x35")
	ipv6First = []byte("\x60\x00\x00\x00\x00\x0c\x2c\x40" + ipv6Addrs + "\x11\x00\x00\x01\x00\x00\x00\x01" + "\x12\x34\x00\x35")
	ipv6Later = []byte("\x60\x00\x00\x00\x00\x0c\x2c\x40" + ipv6Addrs + "\x11\x00\x05\xa8\x00\x00\x00\x01" + "\x12\x34\x00\x35")
	ipv6Whole = []byte("\x60\x00\x00\x00\x00\x0c\x2c\x40" + ipv6Addrs + "\x11\x00\x00\x00\x00\x00\x00\x01" + "\x12\x34\x00\x35")
)

func TestParsePacket(t *testing.T) {
	src4, dst4 := netip.MustParseAddr("198.18.1.2"), TargetV4
	src6, dst6 := netip.MustParseAddr("fd18:0:0:1::2"), TargetV6
	for name, tc := range map[string]struct {
		packet []byte
		want   Packet
	}{
		"IPv4 UDP":                    {ipv4UDP, Packet{Src: src4, Dst: dst4, Proto: 17, SrcPort: 0x1234, DstPort: 53, Len: 32}},
		"IPv4 first fragment":         {ipv4First, Packet{Src: src4, Dst: dst4, Proto: 17, SrcPort: 0x1234, DstPort: 53, Len: 32, Fragment: true}},
		"IPv4 later fragment":         {ipv4Later, Packet{Src: src4, Dst: dst4, Proto: 17, Len: 32, Fragment: true}},
		"IPv4 with options":           {ipv4Opts, Packet{Src: src4, Dst: dst4, Proto: 6, SrcPort: 0x1234, DstPort: 80, Len: 32}},
		"IPv4 cut after its header":   {ipv4UDP[:20], Packet{Src: src4, Dst: dst4, Proto: 17, Len: 32}},
		"IPv6 TCP":                    {ipv6TCP, Packet{Src: src6, Dst: dst6, Proto: 6, SrcPort: 0x1234, DstPort: 80, Len: 44}},
		"IPv6 behind hop-by-hop":      {ipv6Hop, Packet{Src: src6, Dst: dst6, Proto: 17, SrcPort: 0x1234, DstPort: 53, Len: 52}},
		"IPv6 first fragment":         {ipv6First, Packet{Src: src6, Dst: dst6, Proto: 17, SrcPort: 0x1234, DstPort: 53, Len: 52, Fragment: true}},
		"IPv6 later fragment":         {ipv6Later, Packet{Src: src6, Dst: dst6, Proto: 17, Len: 52, Fragment: true}},
		"IPv6 atomic fragment":        {ipv6Whole, Packet{Src: src6, Dst: dst6, Proto: 17, SrcPort: 0x1234, DstPort: 53, Len: 52}},
		"IPv6 cut in its extensions":  {ipv6First[:44], Packet{Src: src6, Dst: dst6, Proto: 44, Len: 52}},
		"IPv6 cut before its payload": {ipv6First[:48], Packet{Src: src6, Dst: dst6, Proto: 17, Len: 52, Fragment: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePacket(tc.packet)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, bad := range [][]byte{nil, ipv4UDP[:19], ipv6TCP[:39], []byte("\x44" + string(ipv4UDP[1:])), []byte("\x50" + string(ipv4UDP[1:]))} {
		if got, err := parsePacket(bad); err == nil {
			t.Errorf("%x: got %v", bad, got)
		}
	}
}

// FuzzParsePacket checks the plain fields against x/net's parsers.
func FuzzParsePacket(f *testing.F) {
	for _, b := range [][]byte{nil, ipv4UDP, ipv4First, ipv4Later, ipv4Opts, ipv6TCP, ipv6Hop, ipv6First, ipv6Later, ipv6Whole} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		_ = p.String()
		switch b[0] >> 4 {
		case 4:
			h, err := ipv4.ParseHeader(b)
			if err != nil {
				return // it wants the options to be whole
			}
			if p.Src.String() != h.Src.String() || int(p.Proto) != h.Protocol || p.Len != h.TotalLen ||
				p.Fragment != (h.Flags&ipv4.MoreFragments != 0 || h.FragOff != 0) {
				t.Errorf("got %+v, want %v", p, h)
			}
		case 6:
			h, err := ipv6.ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			src, _ := netip.AddrFromSlice(h.Src)
			if p.Src != src.Unmap() || p.Len != h.PayloadLen+40 {
				t.Errorf("got %+v, want %v", p, h)
			}
		}
	})
}
