//go:build linux

package e2e_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
)

// attacks is what a device with bad intentions tries, and what must hold then
// for the host and for the other devices.
func attacks(t *testing.T, w *torWorld) {
	t.Run("OddPacketsReachNothing", func(t *testing.T) { oddPackets(t, w.in(t)) })
	w.secondDevice()
	defer w.run(0, "", phone, "vpn", "down")
	for _, sub := range []struct {
		name string
		run  func(*testing.T, *torWorld)
	}{
		{"OneDeviceDoesNotStarveDNSOverTCP", dnsIsShared},
		{"OneDeviceDoesNotStarveThePage", pageIsShared},
		{"StrictChoiceHoldsWhileTheServiceDies", strictWhileKilled},
		{"LogsNameNoTargets", logsNameNoTargets},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.run(t, w.in(t)) })
	}
}

// secondDevice brings the phone, bob's, into lane tor.
func (w *torWorld) secondDevice() {
	w.t.Helper()
	if w.Vpnctl(w.t.Context(), "user", "get", "bob").Run() != nil {
		w.createUser("bob")
		w.connect(phone, "bob", "phone")
	}
	w.run(0, "", phone, "vpn", "up", "--lane", "tor")
}

// oddPackets sends what no program would: options, extension headers, every
// protocol, false sources, to the host's own addresses and past it, in all
// three states. Nothing may leave, and services of the host hear nothing.
func oddPackets(t *testing.T, w *torWorld) {
	b := watchBorder(t, w)
	heard := w.listenEverywhere(t)
	raw := w.tunnelEnd(t)
	for _, state := range []string{"up", "maintenance", "down"} {
		switch state {
		case "down":
			w.ctl(0, "", "tor", "down", "-y")
		case "maintenance":
			w.ctl(0, "", "tor", "maintenance")
		}
		sent := 0
		for _, p := range w.oddities() {
			if raw(p) == nil {
				sent++
			}
		}
		if sent < 1000 {
			t.Errorf("%s: only %d packets were sent: this proves nothing", state, sent)
		}
		w.tunnelIsEmpty(t)
		b.nothing(t, "in state "+state)
	}
	if n := heard.Load(); n > 0 {
		t.Errorf("services of the host heard %d times from a device", n)
	}
	w.ctl(0, "", "tor", "up", "--wait", "--timeout", "30s")
	w.seesExit()
}

// tunnelIsEmpty waits until a datagram is refused: all that was sent before it
// has been through the tunnel. The kernel refuses a bounded number a second
// (net.ipv4.icmp_msgs_per_sec), so the first ones may not be told.
func (w *torWorld) tunnelIsEmpty(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		c, err := w.Machine(laptop).DialContext(t.Context(), "udp", netip.AddrPortFrom(lab.TargetV4, 443).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := c.Write([]byte("quic?")); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("no refusal: %w", err)
		}
		return nil
	})
}

// strangersPort is a port of a service that has nothing to do with vpnd.
const strangersPort = 7777

// listenEverywhere is a service on all addresses of the server.
func (w *torWorld) listenEverywhere(t *testing.T) *atomic.Int64 {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	err := w.Machine(lab.Server).Do(func() (err error) {
		if tcp, err = net.Listen("tcp", fmt.Sprintf(":%d", strangersPort)); err == nil {
			udp, err = net.ListenPacket("udp", fmt.Sprintf(":%d", strangersPort))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	heard := new(atomic.Int64)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			heard.Add(1)
			_ = c.Close()
		}
	})
	all.Go(func() {
		for buf := make([]byte, 100); ; heard.Add(1) {
			if _, _, err := udp.ReadFrom(buf); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_, _ = tcp.Close(), udp.Close()
		all.Wait()
	})
	// The measurement is measured: the server itself is heard.
	if _, err := w.Machine(lab.Server).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", strangersPort)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error {
		if !heard.CompareAndSwap(1, 0) {
			return fmt.Errorf("the listener heard %d", heard.Load())
		}
		return nil
	})
	return heard
}

// tunnelEnd sends IP packets into the laptop's tunnel as they are, past its own
// routing and checks.
func (w *torWorld) tunnelEnd(t *testing.T) func([]byte) error {
	t.Helper()
	fd, index := -1, 0
	err := w.Machine(laptop).Do(func() error {
		i, err := net.InterfaceByName("vpn0")
		if err != nil {
			return err
		}
		index = i.Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func(p []byte) error {
		proto := uint16(unix.ETH_P_IP)
		if p[0]>>4 == 6 {
			proto = unix.ETH_P_IPV6
		}
		to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: proto<<8 | proto>>8}
		return unix.Sendto(fd, p, 0, to)
	}
}

// oddities are the packets. Ports and false sources are tried with each target.
func (w *torWorld) oddities() (all [][]byte) {
	me4, me6 := w.laneAddresses()
	gw4, gw6 := netip.MustParseAddr("10.9.0.1"), netip.PrefixFrom(me6, 64).Masked().Addr().Next()
	server := w.Machine(lab.Server)
	targets := []netip.Addr{
		lab.TargetV4, lab.TargetV6, gw4, gw6, server.IPv4(), server.IPv6(), netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("10.9.255.254"),
		netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("255.255.255.255"),
		netip.MustParseAddr("10.9.255.255"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("64:ff9b::cb00:710a"),
	}
	sources := []netip.Addr{
		me4, me6, gw4, gw6, server.IPv4(), server.IPv6(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), netip.MustParseAddr("10.9.255.254"),
		netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("0.0.0.0"), netip.IPv6Unspecified(), netip.MustParseAddr("fe80::1"), lab.TargetV4, lab.TargetV6,
	}
	for _, dst := range targets {
		for _, src := range sources {
			for _, port := range []uint16{strangersPort, 51820, 51821, 9040, 9041, 9053, 443} {
				if src.Is4() == dst.Is4() && (port == strangersPort || src == me4 || src == me6) {
					all = append(all, packet(src, dst, unix.IPPROTO_UDP, nil, 64, udpTo(src, dst, port)))
				}
			}
		}
		me := me4
		if dst.Is6() {
			me = me6
		}
		body := udpTo(me, dst, strangersPort)
		for proto := range 256 {
			if proto != unix.IPPROTO_TCP { // which may leave, through tor
				all = append(all, packet(me, dst, byte(proto), nil, 64, make([]byte, 24)))
			}
		}
		for ttl := range byte(3) {
			all = append(all, packet(me, dst, unix.IPPROTO_UDP, nil, ttl, body))
		}
		if dst.Is4() {
			hop := lab.TargetV4.As4()
			for _, option := range [][]byte{
				append([]byte{131, 7, 4}, append(hop[:], 0)...), // loose source route
				append([]byte{137, 7, 4}, append(hop[:], 0)...), // strict
				{7, 7, 4, 0, 0, 0, 0, 0},                        // record route
				{0x94, 4, 0, 0},                                 // router alert
			} {
				all = append(all, packet(me, dst, unix.IPPROTO_UDP, option, 64, body))
			}
			continue
		}
		hop := lab.TargetV6.As16()
		for _, header := range []struct {
			kind byte
			rest []byte
		}{
			{0, []byte{0, 1, 4, 0, 0, 0, 0}}, {60, []byte{0, 1, 4, 0, 0, 0, 0}}, {0, []byte{0, 5, 2, 0, 0, 1, 0}}, // padding, router alert
			{43, append([]byte{2, 0, 1, 0, 0, 0, 0}, hop[:]...)}, {43, append([]byte{2, 4, 1, 0, 0, 0, 0}, hop[:]...)}, // routing, types 0 and 4
			{44, []byte{0, 0, 0, 0, 0, 0, 9}}, // one fragment that is the whole
		} {
			all = append(all, packet(me, dst, header.kind, nil, 64, append(append([]byte{unix.IPPROTO_UDP}, header.rest...), body...)))
		}
	}
	return all
}

func (w *torWorld) laneAddresses() (v4, v6 netip.Addr) {
	w.t.Helper()
	err := w.Machine(laptop).Do(func() error {
		i, err := net.InterfaceByName("vpn0")
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				v4 = p.Addr()
			} else if err == nil && !p.Addr().IsLinkLocalUnicast() {
				v6 = p.Addr()
			}
		}
		return err
	})
	if err != nil || !v4.IsValid() || !v6.IsValid() {
		w.t.Fatalf("addresses of the tunnel: %s, %s, %v", v4, v6, err)
	}
	return v4, v6
}

// packet is an IP packet; options are IPv4's.
func packet(src, dst netip.Addr, proto byte, options []byte, ttl byte, payload []byte) []byte {
	if dst.Is6() {
		p := []byte{0x60, 0, 0, 0, 0, 0, proto, ttl}
		binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
		return append(append(append(p, src.AsSlice()...), dst.AsSlice()...), payload...)
	}
	p := []byte{0x45 + byte(len(options)/4), 0, 0, 0, 0, 7, 0, 0, ttl, proto, 0, 0}
	p = append(append(append(p, src.AsSlice()...), dst.AsSlice()...), options...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(payload)))
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	return append(p, payload...)
}

func udpTo(src, dst netip.Addr, port uint16) []byte {
	body := []byte{0x9c, 0x40, byte(port >> 8), byte(port), 0, 12, 0, 0, 'o', 'd', 'd', '!'}
	sum := checksum(append(append(append([]byte{0, unix.IPPROTO_UDP, 0, 12}, src.AsSlice()...), dst.AsSlice()...), body...))
	binary.BigEndian.PutUint16(body[6:], sum)
	return body
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// hog keeps connections of the phone open that say half of something, and opens
// them again when they are closed, until stop.
func (w *torWorld) hog(t *testing.T, to string, half []byte) (stop func()) {
	t.Helper()
	const held = 400 // more than there is room for
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var open atomic.Int64
	for range held {
		all.Go(func() {
			for ctx.Err() == nil {
				if c, err := w.Machine(phone).DialContext(ctx, "tcp", to); err == nil {
					open.Add(1)
					end := context.AfterFunc(ctx, func() { _ = c.Close() })
					_, _ = c.Write(half)
					_, _ = io.Copy(io.Discard, c)
					end()
					_ = c.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	eventually(t, 20*time.Second, func() error {
		if n := open.Load(); n < held {
			return fmt.Errorf("%d connections were opened", n)
		}
		return nil
	})
	return func() { cancel(); all.Wait() }
}

func dnsIsShared(t *testing.T, w *torWorld) {
	const resolver, tries = "198.51.100.53:53", 10
	ask := func() error {
		c, err := w.Machine(laptop).DialContext(t.Context(), "tcp", resolver)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		q := question("target.test")
		if _, err := c.Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 2+len(q)))
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	stop := w.hog(t, resolver, []byte{0})
	defer stop()
	answered, last := 0, error(nil)
	for range tries {
		if err := ask(); err == nil {
			answered++
		} else {
			last = err
		}
	}
	if answered < tries {
		t.Errorf("while another device holds DNS connections, %d of %d questions were answered: %v", answered, tries, last)
	}
}

func pageIsShared(t *testing.T, w *torWorld) {
	w.ctl(0, "", "tor", "maintenance", "--message", "soon")
	defer w.ctl(0, "", "tor", "up", "--wait", "--timeout", "30s")
	const tries = 10
	stop := w.hog(t, netip.AddrPortFrom(lab.TargetV4, 80).String(), []byte("GET / HTTP/1.1\r\nHost: "))
	defer stop()
	answered, last := 0, error(nil)
	for range tries {
		if body, err := w.get(laptop, page(lab.TargetV4, "/")); err == nil && strings.Contains(body, "soon") {
			answered++
		} else {
			last = err
		}
	}
	if answered < tries {
		t.Errorf("while another device holds connections to the page, %d of %d tries got it: %v", answered, tries, last)
	}
}

// strictWhileKilled fetches pages all the time, by both families, while the
// service that attaches streams is killed again and again.
func strictWhileKilled(t *testing.T, w *torWorld) {
	const kills = 5
	w.ctl(0, "", "tor", "exit", "set", "de", "--user", "alice", "--strict")
	defer w.ctl(0, "", "tor", "exit", "clear", "--user", "alice")
	w.leavesBy(laptop, "de", 2)
	e := w.exitOf("de")
	var right, none atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 8 {
		target, want := lab.TargetV4, e.V4.String()
		if i%2 == 1 {
			target, want = lab.TargetV6, e.V6.String()
		}
		all.Go(func() {
			for ctx.Err() == nil {
				seen, err := w.getIn(ctx, 5*time.Second, laptop, page(target, "/ip"))
				switch {
				case err != nil:
					none.Add(1)
				case seen == want:
					right.Add(1)
				default:
					t.Errorf("a page saw %q, against a strict choice of %s", seen, want)
				}
				select {
				case <-ctx.Done():
				case <-time.After(40 * time.Millisecond):
				}
			}
		})
	}
	for range kills {
		before := right.Load()
		eventually(t, 20*time.Second, func() error {
			if n := right.Load(); n < before+50 {
				return fmt.Errorf("%d pages since the last kill", n-before)
			}
			return nil
		})
		w.killService("tor")
	}
	stop()
	all.Wait()
	t.Logf("%d pages by the right exit, %d not at all, %d kills", right.Load(), none.Load(), kills)
}

// logsNameNoTargets uses lane tor and looks for where to in all that vpnd and
// tor keep; vpnd logs at level debug here.
func logsNameNoTargets(t *testing.T, w *torWorld) {
	for _, name := range []string{"very-secret.test", w.network.Onion()} {
		_, _ = w.lookUp(laptop, name) // there need not be an answer
	}
	_, _ = w.getIn(t.Context(), 5*time.Second, laptop, "http://"+netip.AddrPortFrom(lab.TargetV4, 8099).String()) // refused there
	w.ctl(0, "", "tor", "exit", "set", "de", "--user", "alice", "--strict")
	w.leavesBy(laptop, "de", 2)
	w.ctl(0, "", "tor", "exit", "clear", "--user", "alice")
	w.ctl(0, "", "tor", "newid", "--user", "alice")
	names := []string{"very-secret", w.network.Onion()[:20], lab.TargetV4.String(), lab.TargetV6.String()}
	debug := false
	err := w.Machine(lab.Server).Do(func() error {
		for _, root := range []string{"/var/log/vpnd", "/var/log/vpnd.log", torState, "/run/vpnd/tor"} {
			err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() || strings.HasPrefix(path, torState+"/data/") {
					return nil // rotated away meanwhile, or tor's own memory
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return nil
				}
				debug = debug || strings.Contains(string(b), `"DEBUG"`)
				for _, n := range names {
					if i := strings.Index(string(b), n); i >= 0 {
						t.Errorf("%s names a target: %.200q", path, b[max(0, i-100):])
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !debug {
		t.Error("nothing was logged at level debug: this proves nothing")
	}
}
