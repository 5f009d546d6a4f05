//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/lab"
)

// floodPort is the first port that the flood of connections asks for. Each
// attempt has a port of its own, by which it is known again behind the exits.
const floodPort = 10_000

// attempts is a device that opens connections and sends datagrams all the time.
type attempts struct {
	mu    sync.Mutex
	began map[uint16]time.Time // by port of the target
	next  uint16
	ended context.CancelFunc
	all   sync.WaitGroup
}

// aQuestion asks for the IPv4 address of a name that nobody has. It goes to
// every port: tor answers it on 53, and nothing else lets it out.
var aQuestion = []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06nobody\x04test\x00\x00\x01\x00\x01")

func startAttempts(ctx context.Context, t *torDevice) (*attempts, error) {
	ctx, cancel := context.WithCancel(ctx)
	a := &attempts{began: map[uint16]time.Time{}, next: floodPort, ended: cancel}
	often := func(every time.Duration, fn func()) {
		a.all.Go(func() {
			for pause(ctx, every) == nil {
				fn()
			}
		})
	}
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		for range 2 {
			often(4*time.Millisecond, func() {
				once, end := context.WithTimeout(ctx, 200*time.Millisecond)
				defer end()
				if c, err := t.dial(once, "tcp", netip.AddrPortFrom(target, a.port())); err == nil {
					_ = c.Close()
				}
			})
		}
		for _, port := range []uint16{53, 443, 9999} {
			c, err := t.dial(ctx, "udp", netip.AddrPortFrom(target, port))
			if err != nil {
				a.stop()
				return nil, err
			}
			context.AfterFunc(ctx, func() { _ = c.Close() })
			often(5*time.Millisecond, func() { _, _ = c.Write(aQuestion) })
		}
	}
	return a, nil
}

// port is where the next attempt goes, and when that was known.
func (a *attempts) port() uint16 {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.next
	a.next++
	a.began[p] = time.Now()
	return p
}

func (a *attempts) stop() {
	a.ended()
	a.all.Wait()
}

// torDown takes the lane down under load again and again. After a call has
// returned nothing that begins may pass until it is asked up again.
func torDown(ctx context.Context, s *suite) error {
	devices, err := s.torDevices(ctx, 1)
	if err != nil {
		return err
	}
	if err := s.page(ctx, devices[0]); err != nil {
		return err
	}
	internet := s.Machine(lab.Internet)
	behind, err := internet.Capture(ctx, "lo") // from the exits to the targets
	if err != nil {
		return err
	}
	defer behind.Stop()
	border, err := internet.Capture(ctx, s.Machine(lab.Server).Uplink())
	if err != nil {
		return err
	}
	defer border.Stop()
	flood, err := startAttempts(ctx, devices[0])
	if err != nil {
		return err
	}
	defer flood.stop()
	var windows []window
	answers := 0
	for range pick(s.options, 50, 10) {
		if err := pause(ctx, 60*time.Millisecond); err != nil {
			return err
		}
		if err := s.wish(ctx, tor.WishDown); err != nil {
			return err
		}
		w := window{from: time.Now()}
		for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
			if !refused(ctx, devices[0], target) {
				answers++
			}
		}
		if err := pause(ctx, 40*time.Millisecond); err != nil {
			return err
		}
		w.to = time.Now()
		windows = append(windows, w)
		if err := s.wish(ctx, tor.WishUp); err != nil {
			return err
		}
	}
	flood.stop()
	behind.Stop()
	border.Stop()
	if n := behind.Dropped() + border.Dropped(); n > 0 {
		return fmt.Errorf("%d packets passed unrecorded: the count means nothing", n)
	}
	seen := s.judgeDown(flood.began, windows, behind.Packets())
	leaked := 0
	for _, p := range border.Packets() {
		if !s.allowed(p) {
			leaked++
		}
	}
	if seen.open == 0 {
		return errors.New("no attempt of the flood came out of an exit while the lane was up: the count means nothing")
	}
	r := result{
		Name: "tor-down", What: "packets that passed after down had returned", Unit: plain,
		Value: float64(seen.packets + leaked + answers),
	}
	r.goal("0", r.Value == 0)
	r.note("%d times down and up under %d attempts to connect and datagrams of both families; %d attempts began after a return, before the next up",
		len(windows), len(flood.began), seen.during)
	r.note("from exits because of those: %d packets (of attempts begun while up %d came out); past Tor at the border: %d; TCP not refused at once after a return: %d of %d",
		seen.packets, seen.open, leaked, answers, 2*len(windows))
	s.report.add(r)
	return nil
}

// window is a time in which nothing may begin and pass.
type window struct{ from, to time.Time }

func (w window) has(t time.Time) bool { return t.After(w.from) && t.Before(w.to) }

// passed is what came out of the exits.
type passed struct {
	during  int // attempts begun in a window
	packets int // that came of them in the same window
	open    int // other attempts that came out
}

// judgeDown finds the attempts again behind the exits, by their ports.
func (s *suite) judgeDown(began map[uint16]time.Time, windows []window, packets []lab.Packet) passed {
	exits := map[netip.Addr]bool{}
	for _, e := range s.onion.network.Exits() {
		exits[e.V4], exits[e.V6] = true, true
	}
	return count(began, windows, packets, exits)
}

func count(began map[uint16]time.Time, windows []window, packets []lab.Packet, exits map[netip.Addr]bool) passed {
	var out passed
	of := map[uint16]window{}
	for port, at := range began {
		if i := slices.IndexFunc(windows, func(w window) bool { return w.has(at) }); i >= 0 {
			of[port] = windows[i]
		}
	}
	out.during = len(of)
	came := map[uint16]bool{}
	for _, p := range packets {
		if p.Proto != unix.IPPROTO_TCP || !exits[p.Src] || p.Dst != lab.TargetV4 && p.Dst != lab.TargetV6 {
			continue
		}
		if _, ok := began[p.DstPort]; !ok {
			continue
		}
		if w, ok := of[p.DstPort]; !ok {
			came[p.DstPort] = true
		} else if w.has(p.Time) { // later it is a SYN that was sent again
			out.packets++
		}
	}
	out.open = len(came)
	return out
}

// refused tells whether the target refuses a connection at once.
func refused(ctx context.Context, t *torDevice, target netip.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := t.dial(ctx, "tcp", netip.AddrPortFrom(target, 80))
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

var (
	relays4 = netip.MustParsePrefix("192.0.2.0/24")
	relays6 = netip.MustParsePrefix("2001:db8:99::/64")
)

// allowed tells whether the server may send a packet to the internet: tor's to
// relays, answers to a client's tunnel and calls, and what the link itself needs.
func (s *suite) allowed(p lab.Packet) bool {
	server, laptop := s.Machine(lab.Server), s.Machine(lab.Client(1))
	switch {
	case p.Out || p.Src.IsLinkLocalUnicast() || p.Dst.IsMulticast():
		return true
	case p.Src != server.IPv4() && p.Src != server.IPv6():
		return false
	case relays4.Contains(p.Dst) || relays6.Contains(p.Dst):
		return p.Proto == unix.IPPROTO_TCP
	case p.Dst == laptop.IPv4() || p.Dst == laptop.IPv6():
		return p.Proto == unix.IPPROTO_UDP || p.Proto == unix.IPPROTO_TCP && p.SrcPort == apiPort
	}
	return p.Proto == unix.IPPROTO_ICMPV6 // neighbours
}
