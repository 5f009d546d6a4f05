//go:build linux

package wgdev_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"vpnd/pkg/link"
)

// zeroSum is a text that makes the checksum of a datagram from one address to
// another come to zero.
func zeroSum(from, to netip.AddrPort) []byte {
	const length = 8 + 2
	words := binary.BigEndian.AppendUint16(nil, from.Port())
	words = binary.BigEndian.AppendUint16(words, to.Port())
	words = binary.BigEndian.AppendUint16(words, length) // in the header
	words = binary.BigEndian.AppendUint16(words, length) // and in what stands for the IP header
	words = binary.BigEndian.AppendUint16(words, 17)
	a, b := from.Addr().As16(), to.Addr().As16()
	words = append(append(words, a[:]...), b[:]...)
	sum := uint32(0)
	for i := 0; i < len(words); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(words[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return binary.BigEndian.AppendUint16(nil, uint16(0xffff-sum))
}

// One datagram of 65,536 has this checksum, and a resolver that asks again sends
// the same one.
func TestUDPWhoseChecksumIsZeroArrives(t *testing.T) {
	server, client, _ := pair(t)
	inner := func(h *host) netip.Addr {
		a := h.inner.Addr().As4()
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 7, 15: a[3]})
	}
	for _, h := range []*host{server, client} {
		must(t, h.links.Apply(t.Context(), link.Interface{Name: iface, MTU: mtu, TxQueueLen: 5000, Up: true,
			Addresses: []netip.Prefix{h.inner, netip.PrefixFrom(inner(h), 64)}}))
	}
	withIPv6 := func(of *host) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(of.inner.Addr(), 32), netip.PrefixFrom(inner(of), 128)}
	}
	p, q := client.peer(), server.peerAt()
	p.AllowedIPs, q.AllowedIPs = withIPv6(client), withIPv6(server)
	must(t, server.dev.Upsert(t.Context(), p), client.dev.Upsert(t.Context(), q))

	to := netip.AddrPortFrom(inner(server), 5300)
	from := netip.AddrPortFrom(inner(client), 5301)
	var in, out *net.UDPConn
	must(t, server.ns.Do(func() (err error) { in, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(to)); return err }))
	defer in.Close()
	must(t, client.ns.Do(func() (err error) {
		out, err = net.DialUDP("udp6", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	}))
	defer out.Close()
	for _, text := range []string{"any other", string(zeroSum(from, to))} {
		buf, got := make([]byte, 100), ""
		for try := 0; got != text; try++ {
			if try == 20 {
				t.Fatalf("%x never arrived", text)
			}
			_, err := out.Write([]byte(text))
			must(t, err)
			must(t, in.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			n, err := in.Read(buf)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			got = string(buf[:n])
		}
	}
}
