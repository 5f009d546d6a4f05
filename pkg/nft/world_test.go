//go:build linux

package nft_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
	"vpnd/pkg/nft"
)

// Addresses of the test world.
//
//	client A, B ══ wg0 ┐                     ┌ up0 ── internet
//	                   ├── server (the table)┤
//	client T    ══ wg1 ┘                     └ lan0 ── lan, a stranger to the lanes
var (
	gwVPN4, gwVPN6 = netip.MustParseAddr("10.64.0.1"), netip.MustParseAddr("fd64::1")
	gwTor4, gwTor6 = netip.MustParseAddr("10.65.0.1"), netip.MustParseAddr("fd65::1")
	a4, a6         = netip.MustParseAddr("10.64.0.2"), netip.MustParseAddr("fd64::2")
	b4, b6         = netip.MustParseAddr("10.64.0.3"), netip.MustParseAddr("fd64::3")
	t4, t6         = netip.MustParseAddr("10.65.0.2"), netip.MustParseAddr("fd65::2")
	public4        = netip.MustParseAddr("198.18.0.1")
	public6        = netip.MustParseAddr("fd18::1")
	router4        = netip.MustParseAddr("198.18.0.10")
	router6        = netip.MustParseAddr("fd18::10")
	site4          = netip.MustParseAddr("203.0.113.10")
	site6          = netip.MustParseAddr("2001:db8:ff::10")
	lan4, lan6     = netip.MustParseAddr("192.168.77.2"), netip.MustParseAddr("fd77::2")
)

const controlPort = 4605

func testConfig() nft.Config {
	return nft.Config{
		VPN: nft.Lane{
			Interface: "wg0",
			Prefix4:   netip.MustParsePrefix("10.64.0.0/16"), Prefix6: netip.MustParsePrefix("fd64::/64"),
			Gateway4: gwVPN4, Gateway6: gwVPN6, Canary4: b4, Canary6: b6,
		},
		Tor: nft.Lane{
			Interface: "wg1",
			Prefix4:   netip.MustParsePrefix("10.65.0.0/16"), Prefix6: netip.MustParsePrefix("fd65::/64"),
			Gateway4: gwTor4, Gateway6: gwTor6, Canary4: t4, Canary6: t6,
		},
		ControlPort: controlPort,
	}
}

// world is the network of one test.
type world struct {
	server, internet, lan, clientA, clientB, clientT *netns.NS

	wg0, wg1 *os.File // the server's ends of the lanes: writing is a packet from a device
	fw       *nft.Firewall

	torStates bool // lane tor has more than one
}

func newWorld(t testing.TB, cfg nft.Config) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	w := &world{torStates: cfg.TransPort != 0}
	for _, ns := range []**netns.NS{&w.server, &w.internet, &w.lan, &w.clientA, &w.clientB, &w.clientT} {
		n, err := netns.New()
		must(t, err)
		*ns = n
		t.Cleanup(func() { _ = n.Close() })
	}

	w.wg0 = tun(t, w.server, "wg0")
	w.wg1 = tun(t, w.server, "wg1")
	inNS(t, w.server, func(l *link.Links) error {
		return errors.Join(
			l.AddVeth("up0", "net0", w.internet.Fd()),
			l.AddVeth("lan0", "eth0", w.lan.Fd()),
			setup(l, "lo"),
			setup(l, "up0", pfx(public4, 24), pfx(public6, 64)),
			setup(l, "lan0", netip.MustParsePrefix("192.168.77.1/24"), netip.MustParsePrefix("fd77::1/64")),
			setup(l, "wg0", pfx(gwVPN4, 16), pfx(gwVPN6, 64)),
			setup(l, "wg1", pfx(gwTor4, 16), pfx(gwTor6, 64)),
			route(l, "up0", router4, router6),
			sysctl("net/ipv4/ip_forward", "1"),
			sysctl("net/ipv6/conf/all/forwarding", "1"),
			// The defaults limit ICMP errors to one a second for each device.
			sysctl("net/ipv4/icmp_ratemask", "0"),
			sysctl("net/ipv6/icmp/ratelimit", "0"),
		)
	})
	// The internet knows a way back to every address of the server's side: what
	// does not come through was refused, not lost.
	inNS(t, w.internet, func(l *link.Links) error {
		return errors.Join(
			setup(l, "lo"),
			setup(l, "net0", pfx(router4, 24), pfx(router6, 64), pfx(site4, 32), pfx(site6, 128)),
			route(l, "net0", public4, public6),
		)
	})
	inNS(t, w.lan, func(l *link.Links) error {
		return errors.Join(
			setup(l, "lo"),
			setup(l, "eth0", pfx(lan4, 24), pfx(lan6, 64)),
			route(l, "eth0", netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("fd77::1")),
		)
	})
	w.connect(t, w.wg0, map[*netns.NS][]netip.Addr{w.clientA: {a4, a6}, w.clientB: {b4, b6}})
	w.connect(t, w.wg1, map[*netns.NS][]netip.Addr{w.clientT: {t4, t6}})

	cfg.NetNS = w.server.Fd()
	fw, err := nft.New(cfg)
	must(t, err)
	w.fw = fw
	return w
}

// connect plugs clients into one lane. It is WireGuard without the cipher: what
// comes out of the server's interface goes to the client that owns the address.
func (w *world) connect(t testing.TB, server *os.File, clients map[*netns.NS][]netip.Addr) {
	t.Helper()
	peers := make(map[netip.Addr]*os.File)
	var pumps sync.WaitGroup
	for ns, addrs := range clients {
		f := tun(t, ns, "tun0")
		for _, a := range addrs {
			peers[a] = f
		}
		inNS(t, ns, func(l *link.Links) error {
			return errors.Join(
				setup(l, "lo"),
				setup(l, "tun0", pfx(addrs[0], addrs[0].BitLen()), pfx(addrs[1], addrs[1].BitLen())),
				route(l, "tun0"),
			)
		})
		pumps.Go(func() { pump(f, func([]byte) *os.File { return server }) })
	}
	pumps.Go(func() { pump(server, func(p []byte) *os.File { return peers[destination(p)] }) })
	t.Cleanup(func() {
		_ = server.Close()
		for _, f := range peers {
			_ = f.Close()
		}
		pumps.Wait()
	})
}

// pump moves packets until from is closed. A packet without a receiver is lost,
// as on any network.
func pump(from *os.File, to func(packet []byte) *os.File) {
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if f := to(buf[:n]); f != nil {
			_, _ = f.Write(buf[:n])
		}
	}
}

func destination(p []byte) netip.Addr {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20]))
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.Addr{}
}

// tun makes a TUN interface in a namespace.
func tun(t testing.TB, ns *netns.NS, name string) *os.File {
	t.Helper()
	var f *os.File
	must(t, ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("make %s: %w", name, err)
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	}))
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// setMTU sets the largest packet of a link.
func setMTU(t testing.TB, ns *netns.NS, name string, mtu uint32) {
	t.Helper()
	must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint32(mtu)
		return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, req)
	}))
}

func inNS(t testing.TB, ns *netns.NS, fn func(*link.Links) error) {
	t.Helper()
	must(t, ns.Do(func() error {
		l, err := link.Open()
		if err != nil {
			return err
		}
		defer l.Close()
		return fn(l)
	}))
}

func setup(l *link.Links, name string, addrs ...netip.Prefix) error {
	errs := []error{l.SetUp(name)}
	for _, a := range addrs {
		errs = append(errs, l.AddAddr(name, a))
	}
	return errors.Join(errs...)
}

// route sends everything through a link, in both families, to routers when given.
func route(l *link.Links, name string, via ...netip.Addr) error {
	via = append(via, netip.Addr{}, netip.Addr{})
	return errors.Join(
		l.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), via[0], name),
		l.AddRoute(netip.MustParsePrefix("::/0"), via[1], name),
	)
}

func sysctl(path, value string) error {
	return os.WriteFile("/proc/sys/"+path, []byte(value), 0o644)
}

func pfx(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("did not come true in 5 s: %s", what)
		case <-tick.C:
		}
	}
}
