//go:build linux

package nft_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// checksum is the ones' complement sum of RFC 1071, to be inverted by the caller.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// ipPacket puts a transport packet into IPv4 or IPv6 and fills in its checksum
// at offset sumAt: connection tracking takes no packet with a wrong one.
func ipPacket(src, dst netip.Addr, proto byte, sumAt int, l4 []byte) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(l4)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	if proto == unix.IPPROTO_ICMP {
		pseudo = nil
	}
	binary.BigEndian.PutUint16(l4[sumAt:], ^checksum(uint32(checksum(0, pseudo)), l4))

	if src.Is6() {
		h := make([]byte, 40, 40+len(l4))
		h[0] = 6 << 4
		binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
		h[6], h[7] = proto, 64
		copy(h[8:], src.AsSlice())
		copy(h[24:], dst.AsSlice())
		return append(h, l4...)
	}
	h := make([]byte, 20, 20+len(l4))
	h[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
	h[8], h[9] = 64, proto
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	sumIPv4(h)
	return append(h, l4...)
}

func sumIPv4(h []byte) {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^checksum(0, h[:20]))
}

func udpPacket(src, dst netip.Addr, sport, dport uint16) []byte {
	l4 := make([]byte, 8+32)
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	return ipPacket(src, dst, unix.IPPROTO_UDP, 6, l4)
}

func synPacket(src, dst netip.Addr, sport, dport uint16) []byte {
	l4 := make([]byte, 20)
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	binary.BigEndian.PutUint32(l4[4:], 0x12345678)
	l4[12], l4[13] = 5<<4, 0x02
	binary.BigEndian.PutUint16(l4[14:], 65535)
	return ipPacket(src, dst, unix.IPPROTO_TCP, 16, l4)
}

func echoPacket(src, dst netip.Addr, id uint16) []byte {
	proto, kind := byte(unix.IPPROTO_ICMP), byte(8)
	if src.Is6() {
		proto, kind = unix.IPPROTO_ICMPV6, 128
	}
	l4 := make([]byte, 8+32)
	l4[0] = kind
	binary.BigEndian.PutUint16(l4[4:], id)
	return ipPacket(src, dst, proto, 2, l4)
}

// fragments cuts a packet in two after the first 8 bytes of its payload, so that
// not even a whole TCP header is in the first.
func fragments(p []byte, id uint16) [][]byte {
	const cut = 8
	if p[0]>>4 == 6 {
		piece := func(offset uint16, more byte, payload []byte) []byte {
			f := append([]byte(nil), p[:40]...)
			binary.BigEndian.PutUint16(f[4:], uint16(8+len(payload)))
			f[6] = unix.IPPROTO_FRAGMENT
			f = append(f, p[6], 0)
			f = binary.BigEndian.AppendUint16(f, offset|uint16(more))
			f = binary.BigEndian.AppendUint32(f, uint32(id))
			return append(f, payload...)
		}
		return [][]byte{piece(0, 1, p[40:40+cut]), piece(cut, 0, p[40+cut:])}
	}
	piece := func(offset uint16, payload []byte) []byte {
		f := append(append([]byte(nil), p[:20]...), payload...)
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		binary.BigEndian.PutUint16(f[4:], id)
		binary.BigEndian.PutUint16(f[6:], offset)
		sumIPv4(f)
		return f
	}
	const moreFragments = 0x2000
	return [][]byte{piece(moreFragments, p[20:20+cut]), piece(cut/8, p[20+cut:])}
}

func write(t testing.TB, f *os.File, p []byte) {
	t.Helper()
	if _, err := f.Write(p); err != nil {
		t.Fatalf("inject a packet: %v", err)
	}
}
