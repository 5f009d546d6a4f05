//go:build linux

package wgdev_test

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// pair is a server and a client with a tunnel between them that carries pings.
func pair(t *testing.T) (server, client *host, p *pinger) {
	t.Helper()
	hosts := newHosts(t, 2)
	server, client = hosts[0], hosts[1]
	server.start()
	client.start()
	must(t, server.dev.Upsert(t.Context(), client.peer()), client.dev.Upsert(t.Context(), server.peerAt()))
	p = client.ping(server)
	p.flows(t, 5)
	return server, client, p
}

func TestTwoDaemonsCarryPings(t *testing.T) {
	server, client, p := pair(t)
	peers, err := server.dev.Peers(t.Context())
	must(t, err)
	if len(peers) != 1 {
		t.Fatalf("got %d peers", len(peers))
	}
	got := peers[0]
	if !got.SameConfig(client.peer()) {
		t.Errorf("got %+v, want %+v", got.Peer, client.peer())
	}
	if got.RxBytes == 0 || got.TxBytes == 0 || time.Since(got.LastHandshake) > time.Minute {
		t.Errorf("counters do not count: %+v", got)
	}
	if want := netip.AddrPortFrom(client.outer, port); got.Endpoint != want {
		t.Errorf("endpoint %s, want %s", got.Endpoint, want)
	}
	info, err := server.dev.Info(t.Context())
	must(t, err)
	want := wgdev.Info{Backend: wgdev.Userspace, PublicKey: server.key.Public(), ListenPort: port, PeerCount: 1}
	if info != want {
		t.Errorf("info %+v, want %+v", info, want)
	}
	p.stop()

	// Removed means silent, before Remove returns.
	must(t, server.dev.Remove(t.Context(), client.key.Public()), server.dev.Remove(t.Context(), client.key.Public()))
	before, err := client.dev.Peers(t.Context())
	must(t, err)
	late := client.ping(server)
	eventually(t, "pings to be sent", func() bool {
		now, err := client.dev.Peers(t.Context())
		return err == nil && now[0].TxBytes > before[0].TxBytes+1000
	})
	if late.answers() != 0 {
		t.Error("a removed peer was answered")
	}
}

func TestUserspaceInterfaceHasNoLinkLocalAddress(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	must(t, h.ns.Do(func() error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		if len(addrs) != 1 {
			t.Errorf("addresses: %v", addrs)
		}
		return err
	}))
}

func TestConfigureAgainLosesNoPacket(t *testing.T) {
	server, _, p := pair(t)
	for range 20 {
		must(t, server.dev.Configure(t.Context(), wgdev.Config{PrivateKey: server.key, ListenPort: port}))
		p.flows(t, 5)
	}
	if r := p.stop(); r.lost != 0 {
		t.Errorf("%+v", r)
	}
}

func TestChangingOnePeerLosesNoPacketOfAnother(t *testing.T) {
	server, _, p := pair(t)
	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() {
		key, err := wgdev.GeneratePrivateKey()
		if err != nil {
			t.Error(err)
			return
		}
		other := wgdev.Peer{PublicKey: key.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.7.9.9/32")}}
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(server.dev.Upsert(t.Context(), other), server.dev.Upsert(t.Context(), other),
				server.dev.Remove(t.Context(), other.PublicKey)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	p.flows(t, 300)
	close(stop)
	changes.Wait()
	if r := p.stop(); r.lost != 0 {
		t.Errorf("%+v", r)
	}
}

func TestKilledDaemonIsReplacedInWellUnderTwoSeconds(t *testing.T) {
	server, client, p := pair(t)
	book := wgdev.NewEndpointBook()
	peers, err := server.dev.Peers(t.Context())
	must(t, err)
	book.Observe(peers)
	file := filepath.Join(t.TempDir(), "endpoints.json")
	must(t, book.Save(file))

	server.kill()
	if _, err := server.dev.Peers(t.Context()); !errors.Is(err, wgdev.ErrGone) {
		t.Errorf("dead daemon: got %v", err)
	}
	state, err := server.links.Get(iface)
	must(t, err)
	if len(state.Addresses) != 1 || state.Addresses[0] != server.inner || !state.Up {
		t.Errorf("the interface did not keep its settings: %+v", state)
	}

	must(t, server.dev.Close(), server.reopen())
	restored := wgdev.NewEndpointBook()
	must(t, restored.Load(file))
	must(t, server.dev.Upsert(t.Context(), restored.Fill([]wgdev.Peer{client.peer()})...))
	p.flows(t, 20)

	// Back to what was wanted; the session goes on.
	must(t, server.dev.Upsert(t.Context(), client.peer()))
	p.flows(t, 20)
	peers, err = server.dev.Peers(t.Context())
	must(t, err)
	if len(peers) != 1 || !peers[0].SameConfig(client.peer()) || !peers[0].Endpoint.IsValid() {
		t.Errorf("got %+v", peers)
	}
	r := p.stop()
	t.Logf("outage %s, %d of %d pings lost", r.outage, r.lost, r.sent)
	if r.outage > 1500*time.Millisecond {
		t.Errorf("outage %s", r.outage)
	}
}

func TestAReplacedDaemonIsNotTakenForTheOldOne(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	old := h.dev
	h.kill()
	must(t, h.reopen())
	key, err := wgdev.GeneratePrivateKey()
	must(t, err)
	if err := old.Upsert(t.Context(), wgdev.Peer{PublicKey: key.Public()}); !errors.Is(err, wgdev.ErrGone) {
		t.Errorf("old handle: got %v", err)
	}
	must(t, old.Close())
	info, err := h.dev.Info(t.Context())
	must(t, err)
	if info.PeerCount != 0 {
		t.Error("the old handle programmed the new daemon")
	}
}

// self runs this test binary in the namespace.
func (h *host) self(attr *syscall.SysProcAttr, args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, attr
	return cmd
}

func TestOpenAdoptsADaemonWhoseOpenerDied(t *testing.T) {
	h := newHosts(t, 1)[0]
	cmd := h.self(nil, playOpener, iface, "1420", h.runDir, h.key.Reveal())
	must(t, h.ns.Do(cmd.Run)) // opened, configured, gone
	pid := h.pid()
	must(t, h.reopen())
	info, err := h.dev.Info(t.Context())
	must(t, err)
	if info.PublicKey != h.key.Public() {
		t.Errorf("public key %s, want %s", info.PublicKey, h.key.Public())
	}
	if got := h.pid(); got != pid {
		t.Errorf("daemon %d was replaced by %d", pid, got)
	}
	if s, err := os.Stat(filepath.Join(h.runDir, iface+".sock")); err != nil || s.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", s.Mode(), err)
	}
}

func TestOpenWithoutRootButWithTheCapability(t *testing.T) {
	h := newHosts(t, 1)[0]
	const uid = 64123
	must(t, os.Chown(h.runDir, uid, uid))
	cmd := h.self(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}, playUser, itoa(uid), iface, "1420", h.runDir, h.key.Reveal())
	must(t, h.ns.Do(cmd.Run))
	s, err := os.Stat(filepath.Join("/proc", itoa(h.pid())))
	must(t, err)
	if got := s.Sys().(*syscall.Stat_t).Uid; got != uid {
		t.Errorf("the daemon runs as %d, want %d", got, uid)
	}
	must(t, h.reopen())
	info, err := h.dev.Info(t.Context())
	must(t, err)
	if info.PublicKey != h.key.Public() || info.ListenPort != port {
		t.Errorf("got %+v", info)
	}
}

func TestOpenAtOnceStartsOneDaemon(t *testing.T) {
	h := newHosts(t, 1)[0]
	const n = 8
	pids := make([]int, n)
	var all sync.WaitGroup
	must(t, h.reopen()) // registers the end of the daemon
	must(t, h.ns.Do(func() error { return wgdev.Stop(t.Context(), h.config()) }))
	for i := range n {
		all.Go(func() {
			var dev *wgdev.Device
			err := h.ns.Do(func() (err error) { dev, err = wgdev.Open(t.Context(), h.config()); return err })
			if err != nil {
				t.Error(err)
				return
			}
			defer dev.Close()
			pids[i] = h.pid()
		})
	}
	all.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == 0 {
			t.Fatalf("daemons: %v", pids)
		}
	}
}

func TestStopEndsEverything(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	pid := h.pid()
	for range 2 {
		must(t, h.ns.Do(func() error { return wgdev.Stop(t.Context(), h.config()) }))
	}
	eventually(t, "the daemon to be reaped", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	if _, err := h.links.Get(iface); !errors.Is(err, fault.NotFound) {
		t.Errorf("interface: %v", err)
	}
	if _, err := h.dev.Info(t.Context()); !errors.Is(err, wgdev.ErrGone) {
		t.Errorf("device: %v", err)
	}
}

func TestStopAndOpenLeaveForeignInterfacesAlone(t *testing.T) {
	h := newHosts(t, 1)[0]
	must(t, h.links.AddBridge("b0"))
	cfg := openConfig("b0", mtu, h.runDir)
	if err := h.ns.Do(func() error { return wgdev.Stop(t.Context(), cfg) }); !errors.Is(err, fault.Conflict) {
		t.Errorf("stop: %v", err)
	}
	if err := h.ns.Do(func() error { _, err := wgdev.Open(t.Context(), cfg); return err }); !errors.Is(err, fault.Conflict) {
		t.Errorf("open: %v", err)
	}
	if _, err := h.links.Get("b0"); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysWhyTheDaemonDoesNotStart(t *testing.T) {
	h := newHosts(t, 1)[0]
	cfg := h.config()
	cfg.Daemon = []string{"/proc/self/exe", playBroken}
	err := h.ns.Do(func() error { _, err := wgdev.Open(t.Context(), cfg); return err })
	if !errors.Is(err, fault.Unavailable) || !cmp.Equal(errText(err), "no such luck", containing) {
		t.Errorf("got %v", err)
	}
	cfg.Daemon = nil
	err = h.ns.Do(func() error { _, err := wgdev.Open(t.Context(), cfg); return err })
	if !errors.Is(err, fault.Invalid) {
		t.Errorf("no program: got %v", err)
	}
}

func TestStaleSocketFileIsNoObstacle(t *testing.T) {
	h := newHosts(t, 1)[0]
	l, err := net.Listen("unix", filepath.Join(h.runDir, iface+".sock"))
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close(), h.reopen())
}

func TestPortInUse(t *testing.T) {
	h := newHosts(t, 1)[0]
	var taken net.PacketConn
	must(t, h.ns.Do(func() (err error) { taken, err = net.ListenPacket("udp", ":51820"); return err }))
	err := h.reopen()
	if !errors.Is(err, fault.Conflict) || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	must(t, taken.Close())
	must(t, h.dev.Configure(t.Context(), wgdev.Config{PrivateKey: h.key, ListenPort: port}))
}

func TestInProcessDeviceTalksToADaemon(t *testing.T) {
	hosts := newHosts(t, 2)
	server, client := hosts[0], hosts[1]
	server.start()
	must(t, server.dev.Upsert(t.Context(), client.peer()))
	cmd := client.self(nil, playInProcess, iface, "10.7.0.2/16", client.key.Reveal(), server.key.Public().String(), netip.AddrPortFrom(server.outer, port).String())
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, client.ns.Do(cmd.Start))
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	p := client.ping(server)
	p.flows(t, 10)
	p.stop()
	must(t, in.Close(), cmd.Wait())
	if _, err := client.links.Get(iface); !errors.Is(err, fault.NotFound) {
		t.Errorf("the interface outlived its process: %v", err)
	}
}

func TestPeersComeBackAsTheyWereGiven(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	want := make([]wgdev.Peer, 600) // more than one request
	for i := range want {
		key, err := wgdev.GeneratePrivateKey()
		must(t, err)
		want[i] = wgdev.Peer{PublicKey: key.Public(), AllowedIPs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 32),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 9, 14: byte(i >> 8), 15: byte(i)}), 128),
		}}
		if i%2 == 0 {
			want[i].PresharedKey, err = wgdev.GeneratePresharedKey()
			must(t, err)
			want[i].Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 5, 5}), uint16(1000+i))
		} else {
			want[i].Endpoint = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 18, 15: 1}), uint16(1000+i))
			want[i].Keepalive = time.Duration(i) * time.Second
		}
	}
	check := func() {
		t.Helper()
		got, err := h.dev.Peers(t.Context())
		must(t, err)
		peers := make([]wgdev.Peer, len(got))
		for i, p := range got {
			peers[i] = p.Peer
		}
		byKey := cmpopts.SortSlices(func(a, b wgdev.Peer) bool { return a.PublicKey.String() < b.PublicKey.String() })
		byPrefix := cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.Compare(b) < 0 })
		netips := cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}
		if d := cmp.Diff(want, peers, byKey, byPrefix, netips); d != "" {
			t.Errorf("(-want +got):\n%.2000s", d)
		}
	}
	must(t, h.dev.Upsert(t.Context(), want...))
	check()
	must(t, h.dev.Upsert(t.Context(), want...))
	check()
	for i := range want[:100] {
		want[i].PresharedKey, want[i].Keepalive = wgdev.PresharedKey{}, 0
		want[i].AllowedIPs = want[i].AllowedIPs[:1]
	}
	must(t, h.dev.Upsert(t.Context(), want[:100]...))
	check()
	var gone []wgdev.Key
	for _, p := range want[300:] {
		gone = append(gone, p.PublicKey)
	}
	want = want[:300]
	must(t, h.dev.Remove(t.Context(), gone...))
	check()
}

func TestUpsertRefusesBeforeItSends(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	good := func(n byte) wgdev.Peer {
		key, err := wgdev.GeneratePrivateKey()
		must(t, err)
		return wgdev.Peer{PublicKey: key.Public(), AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, 0, n}), 32)}}
	}
	for name, change := range map[string]func(*wgdev.Peer){
		"no key":           func(p *wgdev.Peer) { p.PublicKey = wgdev.Key{} },
		"own key":          func(p *wgdev.Peer) { p.PublicKey = h.key.Public() },
		"low order":        func(p *wgdev.Peer) { p.PublicKey = wgdev.Key{1} },
		"zero prefix":      func(p *wgdev.Peer) { p.AllowedIPs = make([]netip.Prefix, 1) },
		"mapped prefix":    func(p *wgdev.Peer) { p.AllowedIPs[0] = netip.MustParsePrefix("::ffff:10.0.0.1/128") },
		"keepalive":        func(p *wgdev.Peer) { p.Keepalive = 1500 * time.Millisecond },
		"long keepalive":   func(p *wgdev.Peer) { p.Keepalive = 65536 * time.Second },
		"endpoint port":    func(p *wgdev.Peer) { p.Endpoint = netip.MustParseAddrPort("198.18.0.1:0") },
		"endpoint address": func(p *wgdev.Peer) { p.Endpoint = netip.MustParseAddrPort("0.0.0.0:1") },
		"taken prefix":     func(p *wgdev.Peer) { p.AllowedIPs[0] = netip.MustParsePrefix("10.8.0.1/32") },
	} {
		bad := good(2)
		change(&bad)
		if err := h.dev.Upsert(t.Context(), good(1), bad, good(3)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	twice := good(4)
	if err := h.dev.Upsert(t.Context(), twice, twice); !errors.Is(err, fault.Invalid) {
		t.Errorf("twice: got %v", err)
	}
	peers, err := h.dev.Peers(t.Context())
	must(t, err)
	if len(peers) != 0 {
		t.Errorf("%d peers were programmed", len(peers))
	}
}

func TestKernelWireGuard(t *testing.T) {
	h := newHosts(t, 1)[0]
	cfg := h.config()
	cfg.Prefer = wgdev.PreferKernel
	var dev *wgdev.Device
	err := h.ns.Do(func() (err error) { dev, err = wgdev.Open(t.Context(), cfg); return err })
	if errors.Is(err, link.ErrNotSupported) {
		t.Skipf("kernel WireGuard cannot be tested here: %v", err)
	}
	must(t, err)
	defer dev.Close()
	must(t, exerciseDevice(t.Context(), dev, h.key))
	must(t, h.ns.Do(func() error { return wgdev.Stop(t.Context(), cfg) }))
}

func TestDriverOfTheKernelAgainstADaemon(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	cmd := h.self(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}, playWGCtrl, iface, h.runDir, h.key.Reveal())
	must(t, h.ns.Do(cmd.Run))
}

func TestDriverOfTheDaemon(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	must(t, exerciseDevice(t.Context(), h.dev, h.key))
}
