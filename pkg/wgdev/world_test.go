//go:build linux

package wgdev_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// host is a namespace with an outer network card and, once opened, a tunnel.
type host struct {
	t      testing.TB
	ns     *netns.NS
	links  *link.Links
	runDir string
	outer  netip.Addr
	inner  netip.Prefix
	key    wgdev.PrivateKey
	dev    *wgdev.Device
	open   bool
}

const (
	iface = "wgt0"
	mtu   = 1420
	port  = 51820
)

// newHosts makes n namespaces plugged into one bridge: 198.18.0.1, .2 and so on
// outside, 10.7.0.1, .2 inside.
func newHosts(t testing.TB, n int) []*host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	mid, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = mid.Close() })
	var bridge *link.Links
	must(t, mid.Do(func() (err error) { bridge, err = link.Open(); return err }))
	t.Cleanup(bridge.Close)
	must(t, bridge.AddBridge("br"), bridge.SetUp("br"))
	var hosts []*host
	for i := 1; i <= n; i++ {
		h := &host{t: t, outer: netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}), inner: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 7, 0, byte(i)}), 16)}
		h.runDir, err = os.MkdirTemp("", "wgdev") // t.TempDir is too long for a socket
		must(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(h.runDir) })
		h.ns, err = netns.New()
		must(t, err)
		t.Cleanup(func() { _ = h.ns.Close() })
		must(t, h.ns.Do(func() (err error) { h.links, err = link.Open(); return err }))
		t.Cleanup(h.links.Close)
		h.key, err = wgdev.GeneratePrivateKey()
		must(t, err)
		end := fmt.Sprintf("p%d", i)
		must(t, bridge.AddVeth(end, "eth0", h.ns.Fd()), bridge.SetMaster(end, "br"), bridge.SetUp(end),
			h.links.AddAddr("eth0", netip.PrefixFrom(h.outer, 24)), h.links.SetUp("eth0"), h.links.SetUp("lo"))
		hosts = append(hosts, h)
	}
	return hosts
}

// start opens the host's device through a daemon of its own and gives it its key.
func (h *host) start() {
	h.t.Helper()
	must(h.t, h.reopen())
	must(h.t, h.links.Apply(h.t.Context(), link.Interface{Name: iface, MTU: mtu, TxQueueLen: 5000, Addresses: []netip.Prefix{h.inner}, Up: true}))
}

func (h *host) reopen() error {
	if !h.open {
		h.open = true
		h.t.Cleanup(func() {
			if h.dev != nil {
				_ = h.dev.Close()
			}
			err := h.ns.Do(func() error { return wgdev.Stop(context.Background(), h.config()) })
			if err != nil {
				h.t.Errorf("stop: %v", err)
			}
		})
	}
	err := h.ns.Do(func() (err error) { h.dev, err = wgdev.Open(h.t.Context(), h.config()); return err })
	if err != nil {
		return err
	}
	return h.dev.Configure(h.t.Context(), wgdev.Config{PrivateKey: h.key, ListenPort: port})
}

func (h *host) config() wgdev.OpenConfig { return openConfig(iface, mtu, h.runDir) }

// peer is the host as the others program it.
func (h *host) peer() wgdev.Peer {
	return wgdev.Peer{
		PublicKey:  h.key.Public(),
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(h.inner.Addr(), 32)},
	}
}

func (h *host) peerAt() wgdev.Peer {
	p := h.peer()
	p.Endpoint = netip.AddrPortFrom(h.outer, port)
	return p
}

// pid is the daemon's, as it says itself.
func (h *host) pid() int {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.runDir, iface+".pid"))
	must(h.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(h.t, err)
	return pid
}

// kill ends the daemon with SIGKILL and waits until it is gone.
func (h *host) kill() {
	h.t.Helper()
	pid := h.pid()
	must(h.t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(h.t, "the daemon to end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// pinger sends echo requests at a steady pace and keeps when answers came.
type pinger struct {
	conn   *icmp.PacketConn
	dst    net.Addr
	quit   chan struct{}
	ended  sync.WaitGroup
	mu     sync.Mutex
	sent   []time.Time
	answer map[int]time.Time
}

func (h *host) ping(to *host) *pinger {
	h.t.Helper()
	p := &pinger{dst: &net.IPAddr{IP: to.inner.Addr().AsSlice()}, quit: make(chan struct{}), answer: make(map[int]time.Time)}
	must(h.t, h.ns.Do(func() (err error) { p.conn, err = icmp.ListenPacket("ip4:icmp", h.inner.Addr().String()); return err }))
	p.ended.Go(p.receive)
	p.ended.Go(p.send)
	h.t.Cleanup(func() { p.stop() })
	return p
}

func (p *pinger) send() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		seq := len(p.sent)
		p.sent = append(p.sent, time.Now())
		p.mu.Unlock()
		data := binary.BigEndian.AppendUint32(nil, uint32(seq))
		msg := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 77, Seq: seq & 0xffff, Data: data}}
		b, err := msg.Marshal(nil)
		if err == nil {
			_, _ = p.conn.WriteTo(b, p.dst) // a lost one is counted like any other
		}
		select {
		case <-tick.C:
		case <-p.quit:
			return
		}
	}
}

func (p *pinger) receive() {
	buf := make([]byte, 1500)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := icmp.ParseMessage(1, buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && len(e.Data) == 4 {
			p.mu.Lock()
			p.answer[int(binary.BigEndian.Uint32(e.Data))] = time.Now()
			p.mu.Unlock()
		}
	}
}

func (p *pinger) answers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.answer)
}

// report is what became of the pings: how many, how many without answer, and the
// longest run of those.
type report struct {
	sent, lost int
	outage     time.Duration
}

// stop ends the pinger; the last 200 ms, whose answers may be under way, do not
// count.
func (p *pinger) stop() report {
	p.mu.Lock()
	select {
	case <-p.quit:
	default:
		close(p.quit)
		_ = p.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	}
	p.mu.Unlock()
	p.ended.Wait()
	_ = p.conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	var r report
	var from time.Time
	for seq, at := range p.sent {
		if p.sent[len(p.sent)-1].Sub(at) < 200*time.Millisecond {
			break
		}
		r.sent++
		if _, ok := p.answer[seq]; ok {
			from = time.Time{}
			continue
		}
		r.lost++
		if from.IsZero() {
			from = at
		}
		r.outage = max(r.outage, at.Sub(from)+5*time.Millisecond)
	}
	return r
}

// flows waits until pings are answered.
func (p *pinger) flows(t testing.TB, n int) {
	t.Helper()
	want := p.answers() + n
	eventually(t, fmt.Sprintf("%d answered pings", n), func() bool { return p.answers() >= want })
}
