package tor

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

const (
	dnsMax  = 4096 // longest message taken
	dnsHead = 12
)

// dnsTCP answers DNS over TCP by asking tor's DNSPort over UDP, from a
// loopback address of the device's own so that isolation reaches it too.
type dnsTCP struct {
	upstream      func() netip.AddrPort // not valid: refuse
	source        func(ctx context.Context, device netip.Addr) (netip.Addr, error)
	idle, timeout time.Duration
}

// serve runs until the listener is closed.
func (d *dnsTCP) serve(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			select { // out of file descriptors, most likely
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		go d.connection(ctx, c)
	}
}

func (d *dnsTCP) connection(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	peer, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	for {
		_ = c.SetDeadline(time.Now().Add(d.idle))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < dnsHead || n > dnsMax {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		if query[2]&0x80 != 0 {
			return // an answer, no question
		}
		answer, err := d.ask(ctx, peer.Addr(), query)
		if err != nil {
			answer = servfail(query)
		}
		_ = c.SetDeadline(time.Now().Add(d.idle))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (d *dnsTCP) ask(ctx context.Context, device netip.Addr, query []byte) ([]byte, error) {
	to := d.upstream()
	if !to.IsValid() {
		return nil, net.ErrClosed
	}
	source, err := d.source(ctx, device)
	if err != nil {
		return nil, err
	}
	c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(d.timeout))
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 65535)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= dnsHead && buf[0] == query[0] && buf[1] == query[1] && buf[2]&0x80 != 0 {
			return buf[:n], nil
		}
	}
}

// servfail answers a query with its header only: without counts it need not be parsed.
func servfail(query []byte) []byte {
	out := make([]byte, dnsHead)
	copy(out, query[:2])
	out[2], out[3] = 0x80|query[2]&0x79, 0x80|2 // opcode and RD kept; RA
	return out
}
