//go:build linux

package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reg is the one register that every match of a rule uses in turn.
const reg = 1

// exprs is a part of a rule; parts are joined with slices.Concat, and a packet
// must pass them from left to right.
type exprs = []expr.Any

func cmp(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg, Data: data}
}

// ifname compares a whole interface name: the kernel's register holds it padded
// with zeros to IFNAMSIZ.
func ifname(key expr.MetaKey, op expr.CmpOp, name string) exprs {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return exprs{&expr.Meta{Key: key, Register: reg}, cmp(op, padded...)}
}

func iif(name string) exprs    { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func notIif(name string) exprs { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }
func oif(name string) exprs    { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }
func notOif(name string) exprs { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

// l4proto matches the transport protocol. It must come before any look at the
// transport header.
func l4proto(proto byte) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, cmp(expr.CmpOpEq, proto)}
}

func load(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
}

func tcpDport(port uint16) exprs { return transportPort(unix.IPPROTO_TCP, 2, port) }

// transportPort matches a port of TCP or UDP: the source at offset 0, the
// destination at offset 2.
func transportPort(proto byte, offset uint32, port uint16) exprs {
	return append(l4proto(proto),
		load(expr.PayloadBaseTransportHeader, offset, 2),
		cmp(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, port)...))
}

// udpShorter matches datagrams that carry fewer bytes, by the length field that
// the kernel cuts them to; 0, a jumbogram, is short too. The rule must have
// matched UDP before.
func udpShorter(bytes uint16) exprs {
	const header = 8
	return exprs{
		load(expr.PayloadBaseTransportHeader, 4, 2),
		cmp(expr.CmpOpLt, binary.BigEndian.AppendUint16(nil, header+bytes)...),
	}
}

// tcpSyn matches the first packet of either direction of a TCP connection, the
// ones that carry the maximum segment size.
func tcpSyn() exprs { return tcpFlags(flagSYN|flagRST, flagSYN) }

// tcpRst matches resets.
func tcpRst() exprs { return tcpFlags(flagRST, flagRST) }

const flagSYN, flagRST = 0x02, 0x04

func tcpFlags(mask, want byte) exprs {
	return append(l4proto(unix.IPPROTO_TCP),
		load(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		cmp(expr.CmpOpEq, want))
}

// icmpType matches one type of ICMP or ICMPv6, which proto tells apart.
func icmpType(proto, typ byte) exprs {
	return append(l4proto(proto), load(expr.PayloadBaseTransportHeader, 0, 1), cmp(expr.CmpOpEq, typ))
}

// Where the addresses are in the two headers.
const (
	saddr4, daddr4 = 12, 16
	saddr6, daddr6 = 8, 24
)

func saddr(p netip.Prefix, op expr.CmpOp) exprs { return addr(p, op, saddr4, saddr6) }
func daddr(p netip.Prefix, op expr.CmpOp) exprs { return addr(p, op, daddr4, daddr6) }

// addr matches packets of the family of p whose address is (CmpOpEq) or is not
// (CmpOpNeq) inside p. Packets of the other family never match.
func addr(p netip.Prefix, op expr.CmpOp, offset4, offset6 uint32) exprs {
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	bytes := p.Addr().AsSlice()
	length := uint32(len(bytes))
	m := exprs{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, cmp(expr.CmpOpEq, family),
		load(expr.PayloadBaseNetworkHeader, offset, length),
	}
	if p.Bits() < p.Addr().BitLen() {
		m = append(m, &expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: length,
			Mask: netmask(p), Xor: make([]byte, length),
		})
	}
	return append(m, cmp(op, bytes...))
}

func netmask(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// host is the prefix that holds a only.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ctState matches packets whose connection tracking state is any of the bits.
func ctState(bits uint32) exprs {
	return exprs{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		cmp(expr.CmpOpNeq, 0, 0, 0, 0),
	}
}

// count adds the packet to a named counter, which outlives the rule.
func count(r Reason) exprs {
	return exprs{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: string(r)}}
}

func accept() exprs { return exprs{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() exprs   { return exprs{&expr.Verdict{Kind: expr.VerdictDrop}} }

// jump goes on in another chain and comes back at its end.
func jump(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// rejectTCP answers with a reset; the rule must have matched TCP before.
func rejectTCP() exprs { return exprs{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

// rejectAny answers with ICMP or ICMPv6 "administratively prohibited".
func rejectAny() exprs {
	return exprs{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func masquerade() exprs { return exprs{&expr.Masq{}} }

// clampMSS lowers the maximum segment size of a SYN to what the routes of both
// directions carry. The kernel never raises it.
func clampMSS() exprs {
	const tcpOptionMSS = 2
	return exprs{
		&expr.Rt{Key: expr.RtTCPMSS, Register: reg},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: reg, Type: tcpOptionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	}
}
