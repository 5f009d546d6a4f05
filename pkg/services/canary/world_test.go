package canary

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// server is the other side of a lane: a real WireGuard device, which answers
// as the world says.
type server struct {
	*link
	dev  *device.Device
	lane lanes.Lane
	own  []netip.Addr // the canary's
}

// world is a canary with fake siblings behind real sockets.
type world struct {
	t      testing.TB
	s      *Service
	lanes  map[lanes.Name]*server
	events chan events.Event

	mu      sync.Mutex
	counts  lanes.CanaryCounts
	peer    string
	puts    int
	got     map[lanes.Name][][]byte
	wishes  []tor.WishRequest
	answer  func(lanes.Name, []byte) [][]byte // besides the gateway's echo
	onGet   func(n int) error                 // before the n-th count is answered
	gets    int
	noEcho6 bool
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newWorld(t testing.TB, cfg config.LeakTest) *world {
	t.Helper()
	w := &world{t: t, lanes: map[lanes.Name]*server{}, got: map[lanes.Name][][]byte{}, events: make(chan events.Event, 100)}
	w.counts = lanes.CanaryCounts{Left: map[lanes.Name]uint64{lanes.VPN: 7, lanes.Tor: 3}, Reached: map[lanes.Name]uint64{lanes.VPN: 0, lanes.Tor: 5}, Repairs: 2, Addrs: map[lanes.Name][]netip.Addr{}}
	for i, name := range []lanes.Name{lanes.VPN, lanes.Tor} {
		s := w.newServer(name, i+8)
		w.lanes[name] = s
		w.counts.Lanes = append(w.counts.Lanes, s.lane)
		w.counts.Addrs[name] = s.own
	}
	dir, err := os.MkdirTemp("", "canary") // t.TempDir is too long for a socket
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := w.sibling(dir, "lanes", func(srv *rpc.Server) {
		rpc.Handle(srv, lanes.PutCanary, w.put)
		rpc.Handle(srv, lanes.GetCanary, func(context.Context, *struct{}) (*lanes.CanaryCounts, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gets++
			if w.onGet != nil {
				if err := w.onGet(w.gets); err != nil {
					return nil, err
				}
			}
			return w.copy(), nil
		})
	})
	tr := w.sibling(dir, "tor", func(srv *rpc.Server) {
		rpc.Handle(srv, tor.SetWish, func(_ context.Context, r *tor.WishRequest) (*tor.Status, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.wishes = append(w.wishes, *r)
			return &tor.Status{}, nil
		})
	})
	w.s, err = New(cfg, config.Default().Tor, Deps{l, tr, slog.New(slog.DiscardHandler), func(e events.Event) { w.events <- e }})
	must(t, err)
	w.s.pace = pace{handshake: 7 * time.Second, quiet: 50 * time.Millisecond, settle: 5 * time.Second, echo: 250 * time.Millisecond}
	return w
}

// copy is what a reader of the socket may keep; it wants mu held.
func (w *world) copy() *lanes.CanaryCounts {
	c := w.counts
	c.Left, c.Reached, c.Lanes = maps.Clone(c.Left), maps.Clone(c.Reached), slices.Clone(c.Lanes)
	return &c
}

func (w *world) sibling(dir, name string, register func(*rpc.Server)) *rpc.Conn {
	w.t.Helper()
	file := filepath.Join(dir, name)
	l, err := net.Listen("unix", file)
	must(w.t, err)
	srv := rpc.NewServer(rpc.ServerConfig{Name: name, Log: slog.New(slog.DiscardHandler),
		Identify: func(rpc.PeerCred) (rpc.Caller, error) { return rpc.Caller{Name: "canary", Access: rpc.Internal}, nil }})
	register(srv)
	w.background(func(ctx context.Context) { _ = srv.Serve(ctx, l) })
	c := rpc.DialUnix(name, file, rpc.Options{})
	w.t.Cleanup(c.CloseIdle)
	return c
}

// background runs fn until the test ends.
func (w *world) background(fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); fn(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

func (w *world) newServer(name lanes.Name, n int) *server {
	w.t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(w.t, err)
	l := newLink(1420)
	s := &server{link: l, dev: device.NewDevice(l, &loopback{}, device.NewLogger(device.LogLevelSilent, ""))}
	w.t.Cleanup(func() { s.dev.Close(); <-s.dev.Wait() })
	must(w.t, s.dev.IpcSet("private_key="+hex.EncodeToString(key.Bytes())+"\n"), s.dev.Up())
	text, err := s.dev.IpcGet()
	must(w.t, err)
	s.lane = lanes.Lane{
		Name: name, State: "up", PublicKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), MTU: 1420,
		IPv4: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.1/16", n)), IPv6: netip.MustParsePrefix(fmt.Sprintf("fd76:706e:640%d::1/64", n)),
	}
	for line := range lines(text) {
		_, _ = fmt.Sscanf(line, "listen_port=%d", &s.lane.Port)
	}
	s.own = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.%d.255.254", n)), netip.MustParseAddr(fmt.Sprintf("fd76:706e:640%d::fffe", n))}
	w.background(func(ctx context.Context) {
		for {
			select {
			case b := <-s.in:
				w.receive(s, b)
			case <-ctx.Done():
				return
			}
		}
	})
	return s
}

func lines(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > 0 {
			i := slices.Index([]byte(text), '\n')
			if i < 0 || !yield(text[:i]) {
				return
			}
			text = text[i+1:]
		}
	}
}

// put programs the canary's peer, as lanes does.
func (w *world) put(_ context.Context, r *lanes.CanaryRequest) (*lanes.CanaryCounts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.puts++
	w.peer = r.Body.PublicKey
	if w.peer == "" {
		return w.copy(), nil
	}
	key, err := base64.StdEncoding.DecodeString(w.peer)
	if err != nil || len(key) != 32 {
		return nil, fault.New(fault.Invalid, "no key")
	}
	for _, s := range w.lanes {
		text := "public_key=" + hex.EncodeToString(key) + "\nreplace_allowed_ips=true\n"
		for _, a := range s.own {
			text += "allowed_ip=" + netip.PrefixFrom(a, a.BitLen()).String() + "\n"
		}
		if err := s.dev.IpcSet(text); err != nil {
			return nil, err
		}
	}
	return w.copy(), nil
}

// receive records a packet and answers it.
func (w *world) receive(s *server, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[s.lane.Name] = append(w.got[s.lane.Name], b)
	var out [][]byte
	p, ok := readIP(b, false)
	if ok && !p.later && (p.dst == s.lane.IPv4.Addr() || p.dst == s.lane.IPv6.Addr() && !w.noEcho6) && p.proto == p.icmp() {
		out = append(out, echoReply(p))
	}
	if w.answer != nil {
		out = append(out, w.answer(s.lane.Name, b)...)
	}
	for _, o := range out {
		s.out <- o
	}
}

// The answers that a host or the internet gives.

func echoReply(p ip) []byte {
	back := path{p.dst, p.src}
	body := slices.Clone(p.data)
	body[0], body[2], body[3] = icmp4Reply, 0, 0
	if p.src.Is6() {
		body[0] = icmp6Reply
	}
	sum := checksum(body)
	if p.src.Is6() {
		sum = back.sum(unix.IPPROTO_ICMPV6, body)
	}
	binary.BigEndian.PutUint16(body[2:], sum)
	return back.packet(p.proto, 1, body)
}

func tcpAnswer(p ip, flags byte) []byte {
	back := path{p.dst, p.src}
	from, to, seq := binary.BigEndian.Uint16(p.data), binary.BigEndian.Uint16(p.data[2:]), binary.BigEndian.Uint32(p.data[4:])
	return back.packet(unix.IPPROTO_TCP, 1, back.tcp(to, from, 1000, seq+1, flags))
}

func udpAnswer(p ip) []byte {
	back := path{p.dst, p.src}
	return back.packet(unix.IPPROTO_UDP, 1, back.udp(binary.BigEndian.Uint16(p.data[2:]), binary.BigEndian.Uint16(p.data), []byte("answer")))
}

// icmpAnswer quotes a packet in an error from a router.
func icmpAnswer(router netip.Addr, quoted []byte, typ byte) []byte {
	p, _ := readIP(quoted, true)
	back := path{router, p.src}
	body := append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, quoted...)
	sum := checksum(body)
	if p.src.Is6() {
		sum = back.sum(unix.IPPROTO_ICMPV6, body)
	}
	binary.BigEndian.PutUint16(body[2:], sum)
	return back.packet(back.icmp(), 1, body)
}

// event waits for the next event of a type.
func (w *world) event(typ string) events.Event {
	w.t.Helper()
	for {
		select {
		case e := <-w.events:
			if e.Type == typ {
				return e
			}
			w.t.Fatalf("event %s, want %s: %+v", e.Type, typ, e)
		case <-time.After(30 * time.Second):
			w.t.Fatalf("no event %s", typ)
		}
	}
}

func (w *world) do(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}
