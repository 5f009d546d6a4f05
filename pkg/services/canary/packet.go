package canary

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// TCP flags and ICMP types that are sent or looked for (RFC 9293, 792, 4443).
const (
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10

	icmp4Reply, icmp4Unreachable, icmp4Echo, icmp4Expired = 0, 3, 8, 11
	icmp6Unreachable, icmp6Expired, icmp6Echo, icmp6Reply = 1, 3, 128, 129
)

// firstFragment is how much of a payload travels in the first of two
// fragments; a multiple of 8.
const firstFragment = 24

// path is where a packet comes from and goes to.
type path struct{ src, dst netip.Addr }

// packet puts an IP header before a payload. id tells packets of one source
// apart.
func (p path) packet(proto byte, id uint16, payload []byte) []byte {
	if p.src.Is4() {
		return p.header4(proto, id, 0, payload)
	}
	return p.header6(proto, payload)
}

func (p path) header4(proto byte, id, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 4<<4|5, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], p.src.AsSlice())
	copy(b[16:], p.dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

func (p path) header6(next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 6<<4, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], p.src.AsSlice())
	copy(b[24:], p.dst.AsSlice())
	return append(b, payload...)
}

// fragments is packet in two parts.
func (p path) fragments(proto byte, id uint16, payload []byte) [][]byte {
	const more4, more6 = 0x2000, 1
	first, second := payload[:firstFragment], payload[firstFragment:]
	if p.src.Is4() {
		return [][]byte{p.header4(proto, id, more4, first), p.header4(proto, id, firstFragment/8, second)}
	}
	part := func(offset uint16, data []byte) []byte {
		h := []byte{proto, 0}
		h = binary.BigEndian.AppendUint16(h, offset)
		h = binary.BigEndian.AppendUint32(h, uint32(id))
		return p.header6(unix.IPPROTO_FRAGMENT, append(h, data...))
	}
	return [][]byte{part(more6, first), part(firstFragment, second)} // the offset, in units of 8, is in the upper 13 bits
}

func (p path) tcp(from, to uint16, seq, ack uint32, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 0xffff)
	binary.BigEndian.PutUint16(b[16:], p.sum(unix.IPPROTO_TCP, b))
	return b
}

func (p path) udp(from, to uint16, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	b = append(b, data...)
	sum := p.sum(unix.IPPROTO_UDP, b)
	if sum == 0 {
		sum = 0xffff // zero would mean that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// echo is an ICMP or ICMPv6 echo request.
func (p path) echo(id, seq uint16, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	b[0] = icmp4Echo
	if p.src.Is6() {
		b[0] = icmp6Echo
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	b = append(b, data...)
	sum := checksum(b)
	if p.src.Is6() {
		sum = p.sum(unix.IPPROTO_ICMPV6, b)
	}
	binary.BigEndian.PutUint16(b[2:], sum)
	return b
}

func (p path) icmp() byte {
	if p.src.Is6() {
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}

// sum is the checksum over the pseudo header and a transport's data.
func (p path) sum(proto byte, data []byte) uint16 {
	pseudo := slices.Concat(p.src.AsSlice(), p.dst.AsSlice())
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(data)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	return checksum(append(pseudo, data...))
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// dnsQuery asks for the A record of www.example.com (RFC 1035).
func dnsQuery(id uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired, one question
	for _, label := range []string{"www", "example", "com"} {
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	return append(b, 0, 0, 1, 0, 1)
}
