package canary

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// held is how many packets wait on each side of a link.
const held = 512

// link is a network interface of which the other end is in this process.
type link struct {
	mtu     int
	out     chan []byte // to the tunnel
	in      chan []byte // from the tunnel
	events  chan tun.Event
	closed  chan struct{}
	closing sync.Once
}

func newLink(mtu int) *link {
	l := &link{mtu: mtu, out: make(chan []byte, held), in: make(chan []byte, held), events: make(chan tun.Event, 1), closed: make(chan struct{})}
	l.events <- tun.EventUp
	return l
}

// Read gives the device one packet to send.
func (l *link) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-l.closed:
		return 0, os.ErrClosed
	case p := <-l.out:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	}
}

// Write takes packets that the device received.
func (l *link) Write(bufs [][]byte, offset int) (int, error) {
	for i, b := range bufs {
		select {
		case <-l.closed:
			return i, os.ErrClosed
		case l.in <- bytes.Clone(b[offset:]):
		}
	}
	return len(bufs), nil
}

// Close ends reading and writing.
func (l *link) Close() error {
	l.closing.Do(func() {
		close(l.closed)
		close(l.events)
	})
	return nil
}

// The rest of tun.Device.
func (l *link) File() *os.File           { return nil }
func (l *link) MTU() (int, error)        { return l.mtu, nil }
func (l *link) Name() (string, error)    { return "canary", nil }
func (l *link) Events() <-chan tun.Event { return l.events }
func (l *link) BatchSize() int           { return 1 }

// loopback is a socket that only this host can send to. WireGuard's own bind
// would listen on every address and wants a netlink socket.
type loopback struct {
	mu sync.Mutex
	c  *net.UDPConn
}

// Open opens the socket.
func (l *loopback) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)))
	if err != nil {
		return nil, 0, err
	}
	l.c = c
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, err := c.ReadFromUDPAddrPort(bufs[0])
		if err != nil {
			return 0, err
		}
		sizes[0], eps[0] = n, &conn.StdNetEndpoint{AddrPort: from}
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

// Close closes the socket; it may be opened again.
func (l *loopback) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c == nil {
		return nil
	}
	err := l.c.Close()
	l.c = nil
	return err
}

// Send sends packets to an endpoint.
func (l *loopback) Send(bufs [][]byte, ep conn.Endpoint) error {
	l.mu.Lock()
	c := l.c
	l.mu.Unlock()
	to, ok := ep.(*conn.StdNetEndpoint)
	switch {
	case c == nil:
		return net.ErrClosed
	case !ok:
		return conn.ErrWrongEndpointType
	}
	for _, b := range bufs {
		if _, err := c.WriteToUDPAddrPort(b, to.AddrPort); err != nil {
			return err
		}
	}
	return nil
}

// ParseEndpoint reads address:port.
func (l *loopback) ParseEndpoint(s string) (conn.Endpoint, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &conn.StdNetEndpoint{AddrPort: ap}, nil
}

// The rest of conn.Bind.
func (l *loopback) SetMark(uint32) error { return nil }
func (l *loopback) BatchSize() int       { return 1 }

// tunnel is a WireGuard device with one peer, made for one test.
type tunnel struct {
	*link
	dev *device.Device
}

// openTunnel makes a device that talks to the peer at an address. The
// keepalive makes it shake hands at once.
func openTunnel(private, peer []byte, at netip.AddrPort, mtu int) (*tunnel, error) {
	l := newLink(mtu)
	t := &tunnel{l, device.NewDevice(l, &loopback{}, device.NewLogger(device.LogLevelSilent, ""))}
	var b strings.Builder
	fmt.Fprintf(&b, "private_key=%s\n", hex.EncodeToString(private))
	fmt.Fprintf(&b, "public_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\npersistent_keepalive_interval=25\n", hex.EncodeToString(peer), at)
	err := t.dev.IpcSet(b.String())
	if err == nil {
		err = t.dev.Up()
	}
	if err != nil {
		t.dev.Close()
		return nil, fmt.Errorf("make the test's device: %w", err)
	}
	return t, nil
}

// close ends the device and returns when it has.
func (t *tunnel) close() {
	t.dev.Close()
	<-t.dev.Wait()
}

var errNoHandshake = errors.New("no handshake")

// shakeHands waits until the peer has answered.
func (t *tunnel) shakeHands(ctx context.Context, within time.Duration) error {
	end := time.NewTimer(within)
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := t.dev.IpcGet()
		if err != nil {
			return fmt.Errorf("ask the test's device: %w", err)
		}
		if strings.Contains(text, "\nlast_handshake_time_sec=") && !strings.Contains(text, "\nlast_handshake_time_sec=0\n") {
			return nil
		}
		select {
		case <-tick.C:
		case <-end.C:
			return errNoHandshake
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send hands a packet to the tunnel.
func (t *tunnel) send(ctx context.Context, p []byte) error {
	select {
	case t.out <- p:
		return nil
	case <-t.closed:
		return os.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
