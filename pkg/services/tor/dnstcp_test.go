package tor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// resolver answers over UDP with what reply makes of a query; it is gone at the test's end.
func resolver(t testing.TB, reply func(query []byte, from netip.AddrPort) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			for _, a := range reply(bytes.Clone(buf[:n]), from) {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func answerTo(query []byte) []byte {
	a := bytes.Clone(query)
	a[2] |= 0x80
	return a
}

// answerer serves DNS over TCP in front of a resolver, and gives a way to it.
func answerer(t testing.TB, d *dnsTCP) (dial func() net.Conn) {
	t.Helper()
	d.source = func(context.Context, netip.Addr) (netip.Addr, error) { return netip.MustParseAddr("127.9.0.2"), nil }
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = d.serve(ctx, l); close(done) }()
	t.Cleanup(func() { cancel(); _ = l.Close(); <-done })
	return func() net.Conn {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
}

func framed(query []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
}

func read(c net.Conn) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	out := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(c, out)
	return out, err
}

func query(id byte, size int) []byte {
	q := make([]byte, size)
	q[1], q[2], q[5] = id, 1, 1
	return q
}

func TestPipelinedQueriesAreAnsweredInOrderAndFromTheDevicesAddress(t *testing.T) {
	var from atomic.Pointer[netip.AddrPort]
	upstream := resolver(t, func(q []byte, f netip.AddrPort) [][]byte {
		from.Store(&f)
		other := answerTo(q)
		other[1]++
		return [][]byte{{1}, q, other, answerTo(q)} // what is no answer to it is passed over
	})
	c := answerer(t, &dnsTCP{upstream: func() netip.AddrPort { return upstream }, idle: 10 * time.Second, timeout: 10 * time.Second})()
	var sent []byte
	for i := range 20 {
		sent = append(sent, framed(query(byte(i), dnsHead+i))...)
	}
	sent = append(sent, framed(query(20, dnsMax))...)
	for len(sent) > 0 { // in pieces that end anywhere
		n := min(7, len(sent))
		if len(sent) > 1000 {
			n = 1000
		}
		if _, err := c.Write(sent[:n]); err != nil {
			t.Fatal(err)
		}
		sent = sent[n:]
	}
	for i := range 21 {
		got, err := read(c)
		if err != nil || got[1] != byte(i) || got[2]&0x80 == 0 {
			t.Fatalf("answer %d: %x, %v", i, got, err)
		}
	}
	if a := from.Load().Addr().String(); a != "127.9.0.2" {
		t.Errorf("asked from %s", a)
	}
}

func TestWhatIsNoQueryEndsTheConnection(t *testing.T) {
	upstream := resolver(t, func([]byte, netip.AddrPort) [][]byte { t.Error("it was asked"); return nil })
	dial := answerer(t, &dnsTCP{upstream: func() netip.AddrPort { return upstream }, idle: 10 * time.Second, timeout: time.Second})
	for name, sent := range map[string][]byte{
		"too long":  {dnsMax >> 8, dnsMax&0xff + 1},
		"too short": framed(make([]byte, dnsHead-1)),
		"empty":     {0, 0},
		"an answer": framed(answerTo(query(1, dnsHead))),
	} {
		c := dial()
		_, _ = c.Write(sent)
		if got, err := read(c); err == nil {
			t.Errorf("%s: answered %x", name, got)
		}
	}
}

func TestASlowClientIsCutOffAndASilentResolverIsAFailure(t *testing.T) {
	upstream := resolver(t, func([]byte, netip.AddrPort) [][]byte { return nil })
	d := &dnsTCP{upstream: func() netip.AddrPort { return upstream }, idle: 300 * time.Millisecond, timeout: 100 * time.Millisecond}
	dial := answerer(t, d)
	slow := dial()
	if _, err := slow.Write(framed(query(1, 40))[:20]); err != nil {
		t.Fatal(err)
	}
	if got, err := read(slow); err == nil {
		t.Errorf("half a query was answered by %x", got)
	}
	c := dial()
	if _, err := c.Write(framed(query(7, 40))); err != nil {
		t.Fatal(err)
	}
	if got, err := read(c); err != nil || !slices.Equal(got, []byte{0, 7, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("a silent resolver: %x, %v", got, err)
	}
	d2 := &dnsTCP{upstream: func() netip.AddrPort { return netip.AddrPort{} }, idle: 10 * time.Second, timeout: 10 * time.Second}
	c = answerer(t, d2)()
	if _, err := c.Write(framed(query(7, 40))); err != nil {
		t.Fatal(err)
	}
	if got, err := read(c); err != nil || got[3]&0xf != 2 {
		t.Errorf("a lane that is not up: %x, %v", got, err)
	}
}

// FuzzDNSTCP sends anything: each whole query before the first that is none is
// answered, and nothing else.
func FuzzDNSTCP(f *testing.F) {
	f.Add([]byte{})
	f.Add(framed(query(1, 40)))
	f.Add(append(framed(query(1, 12)), framed(query(2, 13))...))
	f.Add([]byte{0xff, 0xff, 1})
	f.Add(append(framed(query(1, 12)), 0, 12, 1))
	upstream := resolver(f, func(q []byte, _ netip.AddrPort) [][]byte { return [][]byte{answerTo(q)} })
	d := &dnsTCP{upstream: func() netip.AddrPort { return upstream }, idle: 10 * time.Second, timeout: 10 * time.Second,
		source: func(context.Context, netip.Addr) (netip.Addr, error) { return netip.MustParseAddr("127.9.0.2"), nil }}
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) > 8<<10 {
			return
		}
		var want [][]byte
		for rest := sent; len(rest) >= 2; {
			n := int(binary.BigEndian.Uint16(rest))
			if n < dnsHead || n > dnsMax || len(rest) < 2+n || rest[4]&0x80 != 0 {
				break
			}
			want = append(want, answerTo(rest[2:2+n]))
			rest = rest[2+n:]
		}
		here, there := net.Pipe()
		go d.connection(t.Context(), addressed{there})
		go func() { _, _ = here.Write(sent); _ = here.SetReadDeadline(time.Now().Add(10 * time.Second)) }()
		defer here.Close()
		for i, w := range want {
			if got, err := read(here); err != nil || !bytes.Equal(got, w) {
				t.Fatalf("answer %d: %x, %v, want %x", i, got, err, w)
			}
		}
	})
}

// addressed is a pipe with the address of a device.
type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 9, 0, 2), Port: 4000} }
