//go:build linux

package nft_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab/netns"
)

const (
	soon    = time.Second            // a refusal that arrives is a refusal that is told
	patient = 3 * time.Second        // for what must work, on a busy machine
	silence = 250 * time.Millisecond // for what must stay unanswered
)

// serveTCP answers every connection with the address it came from, then echoes
// lines, until the test ends.
func serveTCP(t testing.TB, ns *netns.NS, addr netip.Addr, port uint16) {
	t.Helper()
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = fmt.Fprintln(c, from(c.RemoteAddr()))
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// serveUDP answers every datagram with the address it came from.
func serveUDP(t testing.TB, ns *netns.NS, addr netip.Addr, port uint16) {
	t.Helper()
	var c net.PacketConn
	must(t, ns.Do(func() (err error) {
		c, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			_, peer, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(from(peer)+"\n"), peer)
		}
	}()
}

func from(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().String()
}

// conn is a client's open connection.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func dial(ns *netns.NS, network string, to netip.Addr, port uint16, timeout time.Duration) (*conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: timeout, KeepAlive: -1}
		c, err = d.Dial(network, netip.AddrPortFrom(to, port).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c)}, nil
}

// say sends a line and returns the answer.
func (c *conn) say(line string, timeout time.Duration) (string, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if line != "" {
		if _, err := fmt.Fprintln(c, line); err != nil {
			return "", err
		}
	}
	answer, err := c.r.ReadString('\n')
	return strings.TrimSpace(answer), err
}

// datagram is as long as the header of DNS, so that it is one for DNSPort too.
const datagram = "hello, hello"

// exchange opens a connection and returns what the server saw as its source.
func exchange(ns *netns.NS, network string, to netip.Addr, port uint16, timeout time.Duration) (string, error) {
	c, err := dial(ns, network, to, port, timeout)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if network == "udp" {
		return c.say(datagram, timeout)
	}
	return c.say("", timeout)
}

// told tells whether the network answered with a refusal.
func told(err error) bool {
	for _, e := range []error{unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func wantReach(t *testing.T, ns *netns.NS, network string, to netip.Addr, port uint16, wantSource netip.Addr) {
	t.Helper()
	got, err := exchange(ns, network, to, port, patient)
	if err != nil || got != wantSource.String() {
		t.Errorf("%s to %s port %d: the far side saw %q (%v), want %s", network, to, port, got, err, wantSource)
	}
}

func wantRefused(t *testing.T, ns *netns.NS, network string, to netip.Addr, port uint16) {
	t.Helper()
	got, err := exchange(ns, network, to, port, soon)
	if !told(err) {
		t.Errorf("%s to %s port %d: got %q (%v), want a refusal within %s", network, to, port, got, err, soon)
	}
}

func wantSilence(t *testing.T, ns *netns.NS, network string, to netip.Addr, port uint16) {
	t.Helper()
	got, err := exchange(ns, network, to, port, silence)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%s to %s port %d: got %q (%v), want no answer at all", network, to, port, got, err)
	}
}

// ping returns the type of the ICMP message that answers an echo request, or an
// error when none comes.
func ping(ns *netns.NS, to netip.Addr, timeout time.Duration) (byte, error) {
	network, local, request := "ip4:icmp", "0.0.0.0", byte(8)
	if to.Is6() {
		network, local, request = "ip6:ipv6-icmp", "::", 128
	}
	var c net.PacketConn
	if err := ns.Do(func() (err error) { c, err = net.ListenPacket(network, local); return err }); err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	echo := []byte{request, 0, 0, 0, 0x12, 0x34, 0, 1, 'v', 'p', 'n', 'd'}
	if to.Is4() { // the kernel fills in the checksum of ICMPv6 itself
		binary.BigEndian.PutUint16(echo[2:], ^checksum(0, echo))
	}
	if _, err := c.WriteTo(echo, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		// Neighbour discovery and our own request on a loopback are no answers.
		if n > 0 && buf[0] != request && (to.Is4() || buf[0] < 130 || buf[0] > 143) {
			return buf[0], nil
		}
	}
}

func wantPing(t *testing.T, ns *netns.NS, to netip.Addr) {
	t.Helper()
	got, err := ping(ns, to, patient)
	if want := echoReply(to); err != nil || got != want {
		t.Errorf("ping %s: type %d (%v), want %d", to, got, err, want)
	}
}

func wantPingRefused(t *testing.T, ns *netns.NS, to netip.Addr) {
	t.Helper()
	want := byte(3) // destination unreachable
	if to.Is6() {
		want = 1
	}
	if got, err := ping(ns, to, soon); err != nil || got != want {
		t.Errorf("ping %s: type %d (%v), want a refusal of type %d within %s", to, got, err, want, soon)
	}
}

func echoReply(a netip.Addr) byte {
	if a.Is6() {
		return 129
	}
	return 0
}
