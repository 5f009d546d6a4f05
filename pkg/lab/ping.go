//go:build linux

package lab

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"vpnd/pkg/fault"
)

// PingTimeout is how long a reply may take: a ping without one by then is lost,
// and a reply that comes later does not change that.
const PingTimeout = 2 * time.Second

// maxLostAt bounds PingResult.LostAt.
const maxLostAt = 100

// PingResult is what became of the pings so far.
type PingResult struct {
	Sent     int // all of them, those that could not be handed to the kernel too
	Received int
	Lost     int
	Pending  int // unanswered, but not for PingTimeout yet; zero after Stop

	Duplicates int   // further replies to the same ping
	SendErrors int   // pings that the kernel refused, counted in Lost
	SendError  error // the last of these refusals

	// LongestGap is the longest time between the sending of two pings of which
	// both were answered and none in between; unanswered ones at the start and
	// at the end count. About the interval when nothing was lost.
	LongestGap time.Duration
	// LostAt is when the lost ones were sent, the first 100 of them.
	LostAt                 []time.Time
	MinRTT, AvgRTT, MaxRTT time.Duration
}

// Pinger sends ICMP echo requests until it is stopped.
type Pinger struct {
	conn  *icmp.PacketConn
	dst   netip.Addr
	id    int
	token [8]byte // tells this pinger's replies from everybody else's
	lab   *Lab

	stop     context.CancelFunc
	sendDone chan struct{}
	readDone chan struct{}
	answered chan struct{} // a reply came; never blocks its sender

	mu       sync.Mutex
	pings    []ping
	dups     int
	refused  int
	sendErr  error
	stopOnce sync.Once
	result   PingResult
}

// ping is one echo request, identified by its place in the list.
type ping struct {
	sent    time.Time
	rtt     time.Duration // 0 while there is no reply
	refused bool
}

// Ping pings addr from the machine every interval until Stop or until ctx ends.
func (m *Machine) Ping(ctx context.Context, addr netip.Addr, interval time.Duration) (*Pinger, error) {
	if !addr.IsValid() || interval <= 0 {
		return nil, fault.New(fault.Invalid, "ping needs an address and an interval above 0")
	}
	addr = addr.Unmap()
	p := &Pinger{
		lab:      m.lab,
		dst:      addr,
		sendDone: make(chan struct{}),
		readDone: make(chan struct{}),
		answered: make(chan struct{}, 1),
	}
	var id [2]byte
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(p.token[:])
	p.id = int(binary.BigEndian.Uint16(id[:]))
	if err := m.Do(p.listen); err != nil {
		return nil, fmt.Errorf("ping %s from %s: %w", addr, m.plan.name, err)
	}
	ctx, p.stop = context.WithCancel(ctx)
	if err := m.lab.hold(p, func() { p.Stop() }); err != nil {
		p.stop()
		return nil, errors.Join(err, p.conn.Close())
	}
	go p.read()
	go p.send(ctx, interval)
	return p, nil
}

// listen opens the raw socket, which sees every echo reply that reaches the machine.
func (p *Pinger) listen() (err error) {
	if p.dst.Is4() {
		if p.conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0"); err != nil {
			return err
		}
		var f ipv4.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv4.ICMPTypeEchoReply)
		return p.conn.IPv4PacketConn().SetICMPFilter(&f)
	}
	if p.conn, err = icmp.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
		return err
	}
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeEchoReply)
	return p.conn.IPv6PacketConn().SetICMPFilter(&f)
}

func (p *Pinger) send(ctx context.Context, interval time.Duration) {
	defer close(p.sendDone)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.sendOne()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (p *Pinger) sendOne() {
	msg := icmp.Message{Type: ipv4.ICMPTypeEcho}
	if p.dst.Is6() {
		msg.Type = ipv6.ICMPTypeEchoRequest // the kernel fills in the checksum
	}
	p.mu.Lock()
	seq := len(p.pings)
	p.pings = append(p.pings, ping{sent: time.Now()})
	p.mu.Unlock()

	data := binary.BigEndian.AppendUint64(p.token[:], uint64(seq))
	msg.Body = &icmp.Echo{ID: p.id, Seq: seq & 0xffff, Data: data}
	b, err := msg.Marshal(nil)
	if err == nil {
		_, err = p.conn.WriteTo(b, &net.IPAddr{IP: p.dst.AsSlice(), Zone: p.dst.Zone()})
	}
	if err != nil {
		p.mu.Lock()
		p.pings[seq].refused = true
		p.refused++
		p.sendErr = err
		p.mu.Unlock()
	}
}

func (p *Pinger) read() {
	defer close(p.readDone)
	proto := 1
	if p.dst.Is6() {
		proto = 58
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			return // closed by Stop
		}
		a, ok := from.(*net.IPAddr)
		if !ok || !p.isPeer(a) {
			continue
		}
		msg, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil {
			continue
		}
		// Recognised by the token alone: address translation may change the id.
		echo, ok := msg.Body.(*icmp.Echo)
		if !ok || len(echo.Data) != 16 || [8]byte(echo.Data[:8]) != p.token {
			continue
		}
		p.reply(binary.BigEndian.Uint64(echo.Data[8:]), now)
	}
}

func (p *Pinger) isPeer(a *net.IPAddr) bool {
	from, ok := netip.AddrFromSlice(a.IP)
	return ok && from.Unmap() == p.dst.WithZone("")
}

func (p *Pinger) reply(seq uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq >= uint64(len(p.pings)) {
		return
	}
	one := &p.pings[seq]
	if one.rtt != 0 {
		p.dups++
		return
	}
	if rtt := now.Sub(one.sent); rtt <= PingTimeout {
		one.rtt = max(rtt, 1)
	}
	select {
	case p.answered <- struct{}{}:
	default:
	}
}

// Result is what became of the pings so far.
func (p *Pinger) Result() PingResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count(time.Now())
}

// Stop sends no further ping, waits for the replies that may still come, at
// most PingTimeout, and returns the final result. It may be called again.
func (p *Pinger) Stop() PingResult {
	p.stopOnce.Do(func() {
		p.stop()
		<-p.sendDone
		limit := time.NewTimer(PingTimeout)
		defer limit.Stop()
		for waiting := true; waiting && p.Result().Pending > 0; {
			select {
			case <-p.answered:
			case <-limit.C:
				waiting = false
			}
		}
		_ = p.conn.Close()
		<-p.readDone
		p.lab.drop(p)
		p.mu.Lock()
		p.result = p.count(time.Now().Add(PingTimeout))
		p.mu.Unlock()
	})
	return p.result
}

// count is called with the lock held.
func (p *Pinger) count(now time.Time) PingResult {
	r := PingResult{Sent: len(p.pings), Duplicates: p.dups, SendErrors: p.refused, SendError: p.sendErr}
	var total time.Duration
	var last time.Time // of an answered ping, or of the first one
	for _, one := range p.pings {
		if last.IsZero() {
			last = one.sent
		}
		switch {
		case one.rtt != 0:
			r.Received++
			r.LongestGap = max(r.LongestGap, one.sent.Sub(last))
			last = one.sent
			total += one.rtt
			if r.MinRTT == 0 || one.rtt < r.MinRTT {
				r.MinRTT = one.rtt
			}
			r.MaxRTT = max(r.MaxRTT, one.rtt)
		case one.refused || now.Sub(one.sent) >= PingTimeout:
			r.Lost++
			r.LongestGap = max(r.LongestGap, one.sent.Sub(last))
			if len(r.LostAt) < maxLostAt {
				r.LostAt = append(r.LostAt, one.sent)
			}
		default:
			r.Pending++
		}
	}
	if r.Received > 0 {
		r.AvgRTT = total / time.Duration(r.Received)
	}
	return r
}
