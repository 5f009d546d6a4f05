package canary

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// verdict is what an answer amounts to.
type verdict string

// The verdicts; "nothing" is said when no answer came.
const (
	reset   verdict = "reset"
	refused verdict = "refused"
	reply   verdict = "reply"
	expired verdict = "expired" // a router on the way says so
	nothing verdict = "nothing"
)

// answer is a packet that came back.
type answer struct {
	path
	token uint16 // of the packet that is answered
	what  verdict

	// Of a TCP answer other than a reset, for resetting it.
	tcp      bool
	from     uint16
	seq, ack uint32
}

// ip is an IP packet without its headers.
type ip struct {
	path
	proto byte
	data  []byte
	later bool // a fragment other than the first
}

// readIP reads an IP packet. The end of one that an ICMP error quotes may be
// missing.
func readIP(b []byte, quoted bool) (ip, bool) {
	if len(b) == 0 {
		return ip{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return readIPv4(b, quoted)
	case 6:
		return readIPv6(b, quoted)
	}
	return ip{}, false
}

func readIPv4(b []byte, quoted bool) (ip, bool) {
	if len(b) < 20 {
		return ip{}, false
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || header > len(b) || total < header || total > len(b) && !quoted {
		return ip{}, false
	}
	p := path{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))}
	return ip{p, b[9], b[header:min(total, len(b))], binary.BigEndian.Uint16(b[6:])&0x1fff != 0}, true
}

func readIPv6(b []byte, quoted bool) (ip, bool) {
	if len(b) < 40 {
		return ip{}, false
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) && !quoted {
		return ip{}, false
	}
	out := ip{path: path{netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))}, proto: b[6], data: b[40:min(total, len(b))]}
	for {
		length := 8
		switch out.proto {
		case unix.IPPROTO_FRAGMENT:
			if len(out.data) >= 8 && binary.BigEndian.Uint16(out.data[2:])&^7 != 0 {
				out.later = true
			}
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(out.data) >= 8 {
				length = 8 + 8*int(out.data[1])
			}
		default:
			return out, true
		}
		if len(out.data) < length {
			return ip{}, false
		}
		out.proto, out.data = out.data[0], out.data[length:]
	}
}

// readAnswer tells what a packet answers. Packets that answer nothing, and
// broken ones, are not ok.
func readAnswer(b []byte) (answer, bool) {
	p, ok := readIP(b, false)
	if !ok || p.later || len(p.data) < 8 {
		return answer{}, false
	}
	a := answer{path: p.path, what: reply}
	switch {
	case p.proto == unix.IPPROTO_TCP:
		if len(p.data) < 20 {
			return answer{}, false
		}
		a.from, a.token = binary.BigEndian.Uint16(p.data), binary.BigEndian.Uint16(p.data[2:])
		if p.data[13]&tcpRST != 0 {
			a.what = reset
			return a, true
		}
		a.tcp, a.seq, a.ack = true, binary.BigEndian.Uint32(p.data[4:]), binary.BigEndian.Uint32(p.data[8:])
		return a, true
	case p.proto == unix.IPPROTO_UDP:
		a.token = binary.BigEndian.Uint16(p.data[2:])
		return a, true
	case p.proto != p.icmp():
		return answer{}, false
	}
	switch typ, v6 := p.data[0], p.src.Is6(); {
	case !v6 && typ == icmp4Reply, v6 && typ == icmp6Reply:
		a.token = binary.BigEndian.Uint16(p.data[4:])
		return a, true
	case !v6 && typ == icmp4Unreachable, v6 && typ == icmp6Unreachable:
		a.what = refused
	case !v6 && typ == icmp4Expired, v6 && typ == icmp6Expired:
		a.what = expired
	default:
		return answer{}, false
	}
	a.token, ok = quotedToken(p.data[8:], p.src.Is6())
	return a, ok
}

// quotedToken finds which packet an ICMP error is about.
func quotedToken(b []byte, v6 bool) (uint16, bool) {
	q, ok := readIP(b, true)
	if !ok || q.later || q.src.Is6() != v6 || len(q.data) < 8 {
		return 0, false
	}
	switch q.proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		return binary.BigEndian.Uint16(q.data), true
	case q.icmp():
		return binary.BigEndian.Uint16(q.data[4:]), true
	}
	return 0, false
}
