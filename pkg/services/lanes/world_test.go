//go:build linux

package lanes_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
	"vpnd/pkg/rpc"
	"vpnd/pkg/services/lanes"
	"vpnd/pkg/wgdev"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// server is a namespace in which the service runs.
type server struct {
	t     testing.TB
	ns    *netns.NS
	links *link.Links
	role  role
	conn  *rpc.Conn
	cmd   *exec.Cmd
	end   io.Closer // of its stdin

	clients int
}

// newServer makes the namespace and the folders; nothing runs yet.
func newServer(t testing.TB) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	dir, err := os.MkdirTemp("", "lanes") // t.TempDir is too long for a socket
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &server{t: t}
	s.ns, err = netns.New()
	must(t, err)
	t.Cleanup(func() { _ = s.ns.Close() })
	must(t, s.ns.Do(func() (err error) { s.links, err = link.Open(); return err }))
	t.Cleanup(s.links.Close)
	must(t, s.links.SetUp("lo"))

	c := config.Default()
	c.Lanes.VPN.Interface, c.Lanes.Tor.Interface = "wgl0", "wgl1"
	s.role = role{Config: c, StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Socket: filepath.Join(dir, "lanes.sock"), Compare: compareEvery}
	must(t, os.Mkdir(s.role.StateDir, 0o700), os.Mkdir(s.role.RunDir, 0o700))
	s.as("sessions")
	s.conn = rpc.DialUnix("lanes", s.role.Socket, rpc.Options{})
	t.Cleanup(s.conn.CloseIdle)
	t.Cleanup(func() {
		s.stop()
		if err := s.ns.Do(func() error { return lanes.Teardown(context.Background(), s.role.Config, s.role.RunDir) }); err != nil {
			t.Errorf("teardown: %v", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.role.RunDir, "lanes.log"))
			t.Logf("log of lanes:\n%s", log)
		}
	})
	return s
}

// as has the service take us for another one from now on.
func (s *server) as(name string) {
	s.t.Helper()
	must(s.t, os.WriteFile(filepath.Join(s.role.RunDir, callerFile), []byte(name), 0o600))
	if s.conn != nil {
		s.conn.CloseIdle()
	}
}

// doAs does something as another service.
func (s *server) doAs(name string, do func()) {
	s.t.Helper()
	s.as(name)
	defer s.as("sessions")
	do()
}

// run starts the service and waits until it is ready.
func (s *server) run() {
	s.t.Helper()
	s.spawn()
	eventually(s.t, "both lanes", func() bool {
		l, err := api.List.Call(s.t.Context(), s.conn, nil)
		return err == nil && l.Items[0].State == "up" && l.Items[1].State == "blocked"
	})
}

func (s *server) spawn() {
	s.t.Helper()
	_ = os.Remove(s.role.Socket)
	text, err := json.Marshal(s.role)
	must(s.t, err)
	s.cmd = exec.Command("/proc/self/exe", playLanes, string(text))
	s.cmd.Stderr = os.Stderr
	s.end, err = s.cmd.StdinPipe()
	must(s.t, err, s.ns.Do(s.cmd.Start))
	eventually(s.t, "the service to answer", func() bool {
		_, err := api.Epoch.Call(s.t.Context(), s.conn, nil)
		return err == nil
	})
}

// said gives the message of the first event of that type, and "" when there was
// none.
func (s *server) said(kind string) string {
	s.t.Helper()
	log, err := os.ReadFile(filepath.Join(s.role.RunDir, "lanes.log"))
	must(s.t, err)
	for line := range bytes.Lines(log) {
		var e struct{ Msg, Type, Message string }
		if json.Unmarshal(line, &e) == nil && e.Msg == "event" && e.Type == kind {
			return e.Type + " " + e.Message
		}
	}
	return ""
}

// kill ends the service as a crash does.
func (s *server) kill() {
	s.t.Helper()
	must(s.t, s.cmd.Process.Kill())
	_ = s.cmd.Wait()
	_ = s.end.Close()
	s.cmd = nil
}

// stop ends the service in good order.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the service ended: %v", err)
	}
	_ = s.end.Close()
	s.cmd = nil
}

func (s *server) lane(name api.Name) api.Lane {
	s.t.Helper()
	l, err := api.List.Call(s.t.Context(), s.conn, nil)
	must(s.t, err)
	for _, ln := range l.Items {
		if ln.Name == name {
			return ln
		}
	}
	s.t.Fatalf("no lane %s", name)
	return api.Lane{}
}

func (s *server) put(p api.Peer) error {
	_, err := api.Put.Call(s.t.Context(), s.conn, &api.PutRequest{Body: p})
	return err
}

func (s *server) remove(peers ...api.Peer) (*api.Removed, error) {
	req := &api.RemoveRequest{}
	for _, p := range peers {
		req.Body.Peers = append(req.Body.Peers, api.Removal{Device: p.Device, PublicKey: p.PublicKey})
	}
	return api.Remove.Call(s.t.Context(), s.conn, req)
}

func (s *server) sync(peers ...api.Peer) (*api.Synced, error) {
	req := &api.SyncRequest{}
	req.Body.Peers = append([]api.Peer{}, peers...)
	return api.Sync.Call(s.t.Context(), s.conn, req)
}

// device opens a lane's interface behind the service's back.
func (s *server) device(name api.Name) *wgdev.Device {
	s.t.Helper()
	cfg := s.role.Config.Lanes.VPN
	if name == api.Tor {
		cfg = s.role.Config.Lanes.Tor
	}
	var dev *wgdev.Device
	must(s.t, s.ns.Do(func() (err error) {
		dev, err = wgdev.Open(s.t.Context(), wgdev.OpenConfig{Interface: cfg.Interface, MTU: cfg.MTU, RunDir: s.role.RunDir, Prefer: wgdev.PreferUserspace})
		return err
	}))
	s.t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// keys gives the peers that an interface holds.
func (s *server) keys(name api.Name) map[string]wgdev.PeerState {
	s.t.Helper()
	dev := s.device(name)
	defer dev.Close()
	peers, err := dev.Peers(s.t.Context())
	must(s.t, err)
	out := map[string]wgdev.PeerState{}
	for _, p := range peers {
		out[p.PublicKey.String()] = p
	}
	return out
}

// holds checks that both interfaces hold exactly these peers.
func (s *server) holds(peers ...api.Peer) error {
	for i, name := range []api.Name{api.VPN, api.Tor} {
		got := s.keys(name)
		if len(got) != len(peers) {
			return fmt.Errorf("lane %s has %d peers, want %d", name, len(got), len(peers))
		}
		for _, p := range peers {
			addrs := [][]netip.Addr{p.VPN, p.Tor}[i]
			g, ok := got[p.PublicKey]
			if !ok || len(g.AllowedIPs) != len(addrs) || g.PresharedKey.Reveal() != p.PresharedKey {
				return fmt.Errorf("lane %s: %s has %+v, want %+v", name, p.Device, g, p)
			}
			for _, a := range addrs {
				if !bytes.Contains(fmt.Append(nil, g.AllowedIPs), []byte(a.String())) {
					return fmt.Errorf("lane %s: %s has %v, want %v", name, p.Device, g.AllowedIPs, addrs)
				}
			}
		}
	}
	return nil
}

// daemon is the process id of the interface's wireguard-go, as it says itself.
func (s *server) daemon(iface string) int {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.role.RunDir, iface+".pid"))
	must(s.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(s.t, err)
	return pid
}

// device n as the service is told of it.
func peerOf(n int, key wgdev.PrivateKey) api.Peer {
	psk, err := wgdev.GeneratePresharedKey()
	if err != nil {
		panic(err)
	}
	return api.Peer{
		Device: id.Device(fmt.Sprint("dev", n)), PublicKey: key.Public().String(), PresharedKey: psk.Reveal(),
		VPN: addrs(8, n), Tor: addrs(9, n),
	}
}

func addrs(lane byte, n int) []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{10, lane, byte(n >> 8), byte(n)}),
		netip.AddrFrom16([16]byte{0xfd, 0x76, 0x70, 0x6e, 0x64, lane, 14: byte(n >> 8), 15: byte(n)}),
	}
}

func newPeer(n int) api.Peer {
	key, err := wgdev.GeneratePrivateKey()
	if err != nil {
		panic(err)
	}
	return peerOf(n, key)
}

// client is a namespace with a tunnel into lane vpn.
type client struct {
	t     testing.TB
	ns    *netns.NS
	peer  api.Peer
	dev   *wgdev.Device
	inner netip.Addr
}

// newClient connects a device by a cable of its own. The server must know its
// peer before packets flow.
func (s *server) newClient() *client {
	t := s.t
	t.Helper()
	s.clients++
	n := s.clients + 1
	key, err := wgdev.GeneratePrivateKey()
	must(t, err)
	c := &client{t: t, peer: peerOf(n, key)}
	c.inner = c.peer.VPN[0]
	c.ns, err = netns.New()
	must(t, err)
	t.Cleanup(func() { _ = c.ns.Close() })
	var links *link.Links
	must(t, c.ns.Do(func() (err error) { links, err = link.Open(); return err }))
	t.Cleanup(links.Close)
	cable := fmt.Sprint("cable", n)
	outer := func(host byte) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n), host}), 24)
	}
	must(t, s.links.AddVeth(cable, "eth0", c.ns.Fd()),
		s.links.AddAddr(cable, outer(1)), s.links.SetUp(cable),
		links.AddAddr("eth0", outer(2)), links.SetUp("eth0"), links.SetUp("lo"))

	runDir, err := os.MkdirTemp("", "lanesc")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(runDir) })
	open := wgdev.OpenConfig{
		Interface: "wgc0", MTU: 1420, RunDir: runDir, Prefer: wgdev.PreferUserspace,
		Daemon: []string{"/proc/self/exe", lanes.DaemonCommand, "wgc0", "1420", runDir},
	}
	must(t, c.ns.Do(func() (err error) { c.dev, err = wgdev.Open(t.Context(), open); return err }))
	t.Cleanup(func() {
		_ = c.dev.Close()
		if err := c.ns.Do(func() error { return wgdev.Stop(context.Background(), open) }); err != nil {
			t.Errorf("stop client: %v", err)
		}
	})
	must(t, c.dev.Configure(t.Context(), wgdev.Config{PrivateKey: key, ListenPort: 40000}))
	must(t, links.Apply(t.Context(), link.Interface{Name: "wgc0", MTU: 1420, Up: true, Addresses: []netip.Prefix{netip.PrefixFrom(c.inner, 16)}}))
	c.know(s.lane(api.VPN).PublicKey, netip.AddrPortFrom(outer(1).Addr(), uint16(s.role.Config.Lanes.VPN.Port)))
	return c
}

// know tells the client where the server is.
func (c *client) know(serverKey string, at netip.AddrPort) {
	c.t.Helper()
	k, err := wgdev.ParsePublicKey(serverKey)
	must(c.t, err)
	psk, err := wgdev.ParsePresharedKey(c.peer.PresharedKey)
	must(c.t, err, c.dev.Upsert(c.t.Context(), wgdev.Peer{
		PublicKey: k, PresharedKey: psk, Endpoint: at, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")},
	}))
}

// pinger sends echo requests to the lane's gateway at a steady pace and keeps
// when answers came.
type pinger struct {
	t      testing.TB
	conn   *icmp.PacketConn
	quit   chan struct{}
	ended  sync.WaitGroup
	mu     sync.Mutex
	sent   []time.Time
	answer map[int]time.Time
}

const pingEvery = 5 * time.Millisecond

func (c *client) ping() *pinger {
	c.t.Helper()
	p := &pinger{t: c.t, quit: make(chan struct{}), answer: make(map[int]time.Time)}
	must(c.t, c.ns.Do(func() (err error) { p.conn, err = icmp.ListenPacket("ip4:icmp", c.inner.String()); return err }))
	p.ended.Go(p.receive)
	p.ended.Go(p.send)
	c.t.Cleanup(func() { p.stop() })
	return p
}

func (p *pinger) send() {
	gateway := &net.IPAddr{IP: net.IPv4(10, 8, 0, 1)}
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		seq := len(p.sent)
		p.sent = append(p.sent, time.Now())
		p.mu.Unlock()
		msg := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 78, Seq: seq & 0xffff, Data: binary.BigEndian.AppendUint32(nil, uint32(seq))}}
		if b, err := msg.Marshal(nil); err == nil {
			_, _ = p.conn.WriteTo(b, gateway) // a lost one is counted like any other
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

// flows waits until n more pings are answered.
func (p *pinger) flows(n int) {
	p.t.Helper()
	want := p.answers() + n
	eventually(p.t, fmt.Sprintf("%d answered pings", n), func() bool { return p.answers() >= want })
}

// report is what became of the pings since the first answer: how many, how many
// without answer, and the longest run of those.
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
	begun := false
	for seq, at := range p.sent {
		if p.sent[len(p.sent)-1].Sub(at) < 200*time.Millisecond {
			break
		}
		_, ok := p.answer[seq]
		if begun = begun || ok; !begun {
			continue
		}
		r.sent++
		if ok {
			from = time.Time{}
			continue
		}
		r.lost++
		if from.IsZero() {
			from = at
		}
		r.outage = max(r.outage, at.Sub(from)+pingEvery)
	}
	return r
}
