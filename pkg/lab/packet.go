//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is the summary of an IP packet.
type Packet struct {
	Time      time.Time
	Interface string
	Out       bool       // sent by the machine, not received
	Src, Dst  netip.Addr // never an IPv4-mapped IPv6 address
	Proto     uint8      // what the packet carries: unix.IPPROTO_TCP and so on
	SrcPort   uint16     // of TCP and UDP; zero in a later fragment
	DstPort   uint16
	Len       int  // of the whole IP packet, headers included
	Fragment  bool // a part of a larger packet, also its first
}

// String is one line, like tcpdump's.
func (p Packet) String() string {
	dir := "in"
	if p.Out {
		dir = "out"
	}
	proto := fmt.Sprintf("proto %d", p.Proto)
	ports := true
	switch p.Proto {
	case unix.IPPROTO_TCP:
		proto = "tcp"
	case unix.IPPROTO_UDP:
		proto = "udp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		proto, ports = "icmp", false
	default:
		ports = false
	}
	src, dst := p.Src.String(), p.Dst.String()
	if ports {
		src = netip.AddrPortFrom(p.Src, p.SrcPort).String()
		dst = netip.AddrPortFrom(p.Dst, p.DstPort).String()
	}
	frag := ""
	if p.Fragment {
		frag = " fragment"
	}
	return fmt.Sprintf("%s %s %s %s > %s len %d%s", p.Interface, dir, proto, src, dst, p.Len, frag)
}

var errNotIP = errors.New("not a whole IP header")

// parsePacket reads an IP packet, of which the end may be missing.
func parsePacket(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, errNotIP
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return Packet{}, errNotIP
}

func parseIPv4(b []byte) (Packet, error) {
	if len(b) < 20 {
		return Packet{}, errNotIP
	}
	header := int(b[0]&0x0f) * 4
	if header < 20 {
		return Packet{}, errNotIP
	}
	flags := binary.BigEndian.Uint16(b[6:])
	offset := flags & 0x1fff
	p := Packet{
		Src:      netip.AddrFrom4([4]byte(b[12:16])),
		Dst:      netip.AddrFrom4([4]byte(b[16:20])),
		Proto:    b[9],
		Len:      int(binary.BigEndian.Uint16(b[2:])),
		Fragment: flags&0x2000 != 0 || offset != 0,
	}
	if offset == 0 && len(b) >= header {
		p.parsePorts(b[header:])
	}
	return p, nil
}

func parseIPv6(b []byte) (Packet, error) {
	if len(b) < 40 {
		return Packet{}, errNotIP
	}
	p := Packet{
		Src:   netip.AddrFrom16([16]byte(b[8:24])).Unmap(),
		Dst:   netip.AddrFrom16([16]byte(b[24:40])).Unmap(),
		Proto: b[6],
		Len:   40 + int(binary.BigEndian.Uint16(b[4:])),
	}
	rest := b[40:]
	later := false // a fragment that does not begin with the headers
	for {
		var size int
		switch p.Proto {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(rest) < 8 {
				return p, nil
			}
			size = 8 + int(rest[1])*8
		case unix.IPPROTO_FRAGMENT:
			if len(rest) < 8 {
				return p, nil
			}
			size = 8
			// An atomic fragment (RFC 6946) is a whole packet.
			field := binary.BigEndian.Uint16(rest[2:])
			p.Fragment = p.Fragment || field&^0x6 != 0
			later = later || field>>3 != 0
		default:
			if !later {
				p.parsePorts(rest)
			}
			return p, nil
		}
		p.Proto = rest[0]
		if later {
			return p, nil // what follows is the middle of something
		}
		if len(rest) < size {
			return p, nil
		}
		rest = rest[size:]
	}
}

// parsePorts reads the first bytes of what the packet carries.
func (p *Packet) parsePorts(b []byte) {
	if (p.Proto == unix.IPPROTO_TCP || p.Proto == unix.IPPROTO_UDP) && len(b) >= 4 {
		p.SrcPort = binary.BigEndian.Uint16(b)
		p.DstPort = binary.BigEndian.Uint16(b[2:])
	}
}
