//go:build linux

package lanes_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
	"vpnd/pkg/nft"
	"vpnd/pkg/services/lanes"
	"vpnd/pkg/wgdev"
)

func TestPutRemoveSyncStats(t *testing.T) {
	s := newServer(t)
	s.run()
	a, b, c := newPeer(2), newPeer(3), newPeer(4)
	must(t, s.put(a), s.put(b), s.put(a))
	must(t, s.holds(a, b))

	replaced := newPeer(2) // the same device and addresses, another key
	must(t, s.put(replaced))
	must(t, s.holds(replaced, b))

	stats, err := api.Stats.Call(t.Context(), s.conn, nil)
	must(t, err)
	if len(stats.Peers) != 2 || stats.Synced {
		t.Errorf("stats %+v", stats)
	}
	removed, err := s.remove(b, c, a) // c and a are not there, which is fine
	must(t, err, s.holds(replaced))
	if len(removed.Last) != 1 || removed.Last[0].Device != b.Device {
		t.Errorf("last counters %+v", removed.Last)
	}
	synced, err := s.sync(b, c)
	must(t, err, s.holds(b, c))
	if synced.Added != 2 || synced.Removed != 1 || synced.Changed != 0 {
		t.Errorf("synced %+v", synced)
	}
	changed := c
	changed.VPN = addrs(8, 77)
	synced, err = s.sync(b, changed)
	must(t, err, s.holds(b, changed))
	if synced.Added != 0 || synced.Removed != 0 || synced.Changed != 1 {
		t.Errorf("synced %+v", synced)
	}
	if e, err := api.Epoch.Call(t.Context(), s.conn, nil); err != nil || !e.Synced || e.Epoch != synced.Epoch {
		t.Errorf("epoch %+v, %v", e, err)
	}
	if got := s.lane(api.Tor); got.State != "blocked" || got.Peers != 2 || got.Interface != "wgl1" || got.Reason == "" {
		t.Errorf("lane tor %+v", got)
	}

	// A key that changes hands leaves nothing behind at its former device.
	stolen := b
	stolen.Device, stolen.VPN, stolen.Tor = "dev9", addrs(8, 9), addrs(9, 9)
	must(t, s.put(stolen))
	_, err = s.remove(b) // is not b's any more
	must(t, err, s.holds(stolen, changed))
	for range 8 { // comparisons
		time.Sleep(compareEvery)
		must(t, s.holds(stolen, changed))
	}
}

func TestBadPeersChangeNothing(t *testing.T) {
	s := newServer(t)
	s.run()
	a := newPeer(2)
	_, err := s.sync(a)
	must(t, err)
	change := func(fn func(p *api.Peer)) api.Peer { p := newPeer(3); fn(&p); return p }
	for name, p := range map[string]api.Peer{
		"no key":         change(func(p *api.Peer) { p.PublicKey = "" }),
		"zero key":       change(func(p *api.Peer) { p.PublicKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }),
		"bad psk":        change(func(p *api.Peer) { p.PresharedKey = "x" }),
		"no address":     change(func(p *api.Peer) { p.VPN[0] = netip.Addr{} }),
		"no device":      change(func(p *api.Peer) { p.Device = "" }),
		"own key of vpn": change(func(p *api.Peer) { p.PublicKey = s.lane(api.VPN).PublicKey }),
		"own key of tor": change(func(p *api.Peer) { p.PublicKey = s.lane(api.Tor).PublicKey }), // lane vpn would take it
	} {
		if err := s.put(p); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	sameKey, twice := newPeer(5), a
	sameKey.PublicKey, twice.PublicKey = a.PublicKey, newPeer(6).PublicKey
	for name, p := range map[string]api.Peer{"key twice": sameKey, "device twice": twice} {
		if _, err := s.sync(a, p); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	must(t, s.holds(a))
}

// TestRestartAdopts is the promise that the data plane outlives this service.
func TestRestartAdopts(t *testing.T) {
	s := newServer(t)
	s.run()
	c, other := s.newClient(), newPeer(200)
	_, err := s.sync(c.peer, other)
	must(t, err)
	p := c.ping()
	p.flows(20)
	before, pid := s.lane(api.VPN), s.daemon("wgl0")
	var epochs []string
	for i := range 3 {
		if i == 2 {
			s.stop()
		} else {
			s.kill()
		}
		p.flows(50) // nobody is there
		s.run()
		e, err := api.Epoch.Call(t.Context(), s.conn, nil)
		must(t, err, s.holds(c.peer, other))
		if e.Synced || slices.Contains(epochs, e.Epoch) {
			t.Errorf("epoch %+v after %v", e, epochs)
		}
		epochs = append(epochs, e.Epoch)
		time.Sleep(2 * compareEvery) // it must not take unknown peers for strangers
		synced, err := s.sync(c.peer, other)
		must(t, err)
		if synced.Added+synced.Changed+synced.Removed != 0 {
			t.Errorf("synced %+v", synced)
		}
		p.flows(20)
	}
	if got := s.lane(api.VPN); got.PublicKey != before.PublicKey || s.daemon("wgl0") != pid {
		t.Errorf("got %+v, want %+v", got, before)
	}
	r := p.stop()
	t.Logf("%d of %d pings lost", r.lost, r.sent)
	if r.lost != 0 {
		t.Errorf("%+v", r)
	}
}

// TestOtherPeersLoseNothing changes peers as fast as it can beside two tunnels
// that carry pings.
func TestOtherPeersLoseNothing(t *testing.T) {
	s := newServer(t)
	s.run()
	first, second := s.newClient(), s.newClient()
	_, err := s.sync(first.peer, second.peer)
	must(t, err)
	pings := []*pinger{first.ping(), second.ping()}
	for _, p := range pings {
		p.flows(20)
	}
	stop := make(chan struct{})
	var changing sync.WaitGroup
	rounds := 0
	changing.Go(func() {
		for n := 100; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			one, two := newPeer(100+n%50), newPeer(100+n%50)
			_, err := s.remove(two)
			if err = errors.Join(err, s.put(one), s.put(two)); err != nil { // added, replaced
				t.Error(err)
				return
			}
			if n%10 == 0 {
				if _, err := s.sync(first.peer, second.peer); err != nil {
					t.Error(err)
					return
				}
			}
			rounds++
		}
	})
	for range 6 {
		for _, p := range pings {
			p.flows(60)
		}
	}
	close(stop)
	changing.Wait()
	for _, p := range pings {
		r := p.stop()
		t.Logf("%d changes, %d of %d pings lost", 3*rounds, r.lost, r.sent)
		if r.lost != 0 || rounds < 20 {
			t.Errorf("%+v", r)
		}
	}
}

func TestKilledWireGuardIsMadeAnew(t *testing.T) {
	s := newServer(t)
	s.run()
	c, other := s.newClient(), newPeer(200)
	_, err := s.sync(c.peer, other)
	must(t, err)
	p := c.ping()
	p.flows(100)
	_, err = api.Stats.Call(t.Context(), s.conn, nil) // as sessions does every two seconds
	must(t, err)

	must(t, syscall.Kill(s.daemon("wgl0"), syscall.SIGKILL))
	// Nobody calls. Traffic must come back all the same.
	p.flows(100)
	r := p.stop()
	t.Logf("outage %s, %d of %d pings lost", r.outage, r.lost, r.sent)
	if r.outage > 3*time.Second {
		t.Errorf("outage %s", r.outage)
	}
	eventually(t, "peers as wanted", func() bool { return s.holds(c.peer, other) == nil })
	eventually(t, "no keepalive", func() bool { return s.keys(api.VPN)[c.peer.PublicKey].Keepalive == 0 })

	// A call that meets the corpse waits instead of failing.
	for _, iface := range []string{"wgl0", "wgl1"} {
		must(t, syscall.Kill(s.daemon(iface), syscall.SIGKILL))
	}
	late := newPeer(201)
	must(t, s.put(late))
	_, err = s.remove(other)
	must(t, err)
	eventually(t, "peers as wanted", func() bool { return s.holds(c.peer, late) == nil })
	again := c.ping()
	again.flows(20)
	if s.said("lane.interface_up") == "" {
		t.Error("nobody was told")
	}
}

// A removed peer stays removed although WireGuard dies in the same moment.
func TestRemovedWhileWireGuardDies(t *testing.T) {
	s := newServer(t)
	s.run()
	keep, gone := newPeer(2), newPeer(3)
	for range 5 {
		_, err := s.sync(keep, gone)
		must(t, err)
		must(t, syscall.Kill(s.daemon("wgl1"), syscall.SIGKILL))
		_, err = s.remove(gone)
		must(t, err)
		if _, ok := s.keys(api.VPN)[gone.PublicKey]; ok {
			t.Fatal("acknowledged and still there")
		}
		eventually(t, "peers as wanted", func() bool { return s.holds(keep) == nil })
		time.Sleep(2 * compareEvery)
		must(t, s.holds(keep))
	}
}

// A Put that cannot be finished leaves nothing, also when the half that failed
// comes through late.
func TestHalfAPutLeavesNoHalfPeer(t *testing.T) {
	s := newServer(t)
	s.run()
	a, b := newPeer(2), newPeer(3)
	_, err := s.sync(a)
	must(t, err)
	pid := s.daemon("wgl1")
	must(t, syscall.Kill(pid, syscall.SIGSTOP)) // lane tor does not answer
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = api.Put.Call(ctx, s.conn, &api.PutRequest{Body: b})
	if !errors.Is(err, fault.Timeout) {
		t.Errorf("got %v", err)
	}
	eventually(t, "lane vpn without the peer", func() bool { return len(s.keys(api.VPN)) == 1 })
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	eventually(t, "both without the peer", func() bool { return s.holds(a) == nil })
	time.Sleep(2 * compareEvery)
	must(t, s.holds(a))
}

func TestStrangersAreRepaired(t *testing.T) {
	s := newServer(t)
	s.run()
	a, b, stray := newPeer(2), newPeer(3), newPeer(4)
	_, err := s.sync(a, b)
	must(t, err)

	dev := s.device(api.VPN)
	strayKey, err := wgdev.ParsePublicKey(stray.PublicKey)
	must(t, err)
	aKey, err := wgdev.ParsePublicKey(a.PublicKey)
	must(t, err)
	must(t, dev.Upsert(t.Context(), wgdev.Peer{PublicKey: strayKey, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.8.0.3/32")}})) // b's address
	must(t, dev.Remove(t.Context(), aKey))
	eventually(t, "peers as wanted", func() bool { return s.holds(a, b) == nil })

	// The whole table goes, as with a stranger's flush.
	wall, err := nft.New(nft.Config{
		VPN:         nft.Lane{Interface: "wgl0", Prefix4: netip.MustParsePrefix("10.8.0.0/16"), Prefix6: netip.MustParsePrefix("fd76:706e:6408::/64"), Gateway4: netip.MustParseAddr("10.8.0.1"), Gateway6: netip.MustParseAddr("fd76:706e:6408::1")},
		Tor:         nft.Lane{Interface: "wgl1", Prefix4: netip.MustParsePrefix("10.9.0.0/16"), Prefix6: netip.MustParsePrefix("fd76:706e:6409::/64"), Gateway4: netip.MustParseAddr("10.9.0.1"), Gateway6: netip.MustParseAddr("fd76:706e:6409::1")},
		ControlPort: 4605, NetNS: s.ns.Fd(),
	})
	must(t, err)
	must(t, wall.Remove(t.Context()))
	start := time.Now()
	eventually(t, "the report", func() bool { return s.said("firewall.repaired") != "" })
	if e := s.said("firewall.repaired"); !strings.Contains(e, "missing") {
		t.Errorf("event %q", e)
	}
	t.Logf("repaired after %s", time.Since(start))
	if got := s.lane(api.VPN); got.State != "up" {
		t.Errorf("lane %+v", got)
	}
}

func TestForwardingIsEnabled(t *testing.T) {
	s := newServer(t)
	s.run()
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		eventually(t, name, func() bool {
			var got []byte
			err := s.ns.Do(func() (err error) { got, err = os.ReadFile("/proc/sys/net/" + name); return err })
			return err == nil && strings.TrimSpace(string(got)) == "1"
		})
	}
}

// Refusals that the kernel keeps to itself leave QUIC waiting for timeouts.
func TestRefusalsAreNotLimited(t *testing.T) {
	s := newServer(t)
	s.run()
	const v4, v6 = "ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"
	is := func(name, want string) func() bool {
		return func() bool {
			var got []byte
			err := s.ns.Do(func() (err error) { got, err = os.ReadFile("/proc/sys/net/" + name); return err })
			return err == nil && strings.TrimSpace(string(got)) == want
		}
	}
	eventually(t, v4, is(v4, "0"))
	eventually(t, v6, is(v6, "0"))
	eventually(t, "the log line", func() bool {
		log, err := os.ReadFile(filepath.Join(s.role.RunDir, "lanes.log"))
		return err == nil && strings.Contains(string(log), "net.ipv4.icmp_ratelimit")
	})
	if e := s.said("firewall.repaired"); e != "" {
		t.Errorf("the first change passes for a repair: %q", e)
	}
	must(t, s.ns.Do(func() error { return os.WriteFile("/proc/sys/net/"+v6, []byte("1000"), 0) }))
	eventually(t, "the repair", is(v6, "0"))
	eventually(t, "the report", func() bool { return s.said("firewall.repaired") != "" })
	if e := s.said("firewall.repaired"); !strings.Contains(e, "net.ipv6.icmp.ratelimit") {
		t.Errorf("event %q", e)
	}
}

func TestInterfaceKeys(t *testing.T) {
	s := newServer(t)
	s.run()
	path := filepath.Join(s.role.StateDir, "wgl0.key")
	before := s.lane(api.VPN).PublicKey
	if before == s.lane(api.Tor).PublicKey {
		t.Error("both lanes have the same key")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	good, err := os.ReadFile(path)
	must(t, err)
	if left, err := filepath.Glob(filepath.Join(s.role.StateDir, ".new-*")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	s.stop()

	for _, broken := range []string{"", "garbage", string(good[:20]), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} {
		must(t, os.WriteFile(path, []byte(broken), 0o600))
		s.spawn()
		eventually(t, "lane tor alone", func() bool { return s.lane(api.Tor).State == "blocked" })
		eventually(t, "the failure", func() bool { return s.lane(api.VPN).State == "failed" })
		if got := s.lane(api.VPN); !strings.Contains(got.Reason, path) {
			t.Errorf("reason %q", got.Reason)
		}
		if err := s.put(newPeer(2)); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), path) {
			t.Errorf("put: %v", err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != broken {
			t.Errorf("the key was replaced: %q, %v", now, err)
		}
		if e := s.said("lane.failed"); !strings.Contains(e, path) {
			t.Errorf("event %q", e)
		}
		must(t, os.WriteFile(path, good, 0o600)) // the backup is restored
		eventually(t, "lane vpn", func() bool { return s.lane(api.VPN).State == "up" })
		if got := s.lane(api.VPN).PublicKey; got != before {
			t.Errorf("key %s became %s", before, got)
		}
		s.stop()
	}
	must(t, os.Remove(path)) // the operator wants a new one
	s.run()
	if got := s.lane(api.VPN).PublicKey; got == before {
		t.Error("no new key")
	}
}

func TestPortInUseIsSaidAndPasses(t *testing.T) {
	s := newServer(t)
	var taken net.PacketConn
	must(t, s.ns.Do(func() (err error) { taken, err = net.ListenPacket("udp", ":51820"); return err }))
	s.spawn()
	eventually(t, "the failure", func() bool { return s.lane(api.VPN).State == "failed" })
	eventually(t, "the reason", func() bool { return strings.Contains(s.lane(api.VPN).Reason, "51820") })
	must(t, taken.Close())
	eventually(t, "lane vpn", func() bool { return s.lane(api.VPN).State == "up" })
}

func TestPreflightNamesBothPrefixes(t *testing.T) {
	ns, err := netns.New()
	must(t, err)
	defer ns.Close()
	var links *link.Links
	must(t, ns.Do(func() (err error) { links, err = link.Open(); return err }))
	defer links.Close()
	c := config.Default()
	check := func() (err error) {
		_ = ns.Do(func() error { err = lanes.Preflight(c); return nil })
		return err
	}
	must(t, check(), links.AddBridge("lan0"), links.SetUp("lan0"),
		links.AddAddr("lan0", netip.MustParsePrefix("10.9.7.1/24")), links.AddAddr("lan0", netip.MustParsePrefix("192.168.1.1/24")),
		links.AddAddr("lan0", netip.MustParsePrefix("fd76:706e:6408::7/64")))
	err = check()
	f := fault.From(err)
	if f.Code != fault.Conflict || f.Hint == "" || len(f.Fields) != 2 {
		t.Fatalf("got %#v", err)
	}
	for _, want := range []string{"lanes.vpn.ipv6", "fd76:706e:6408::/64", "lanes.tor.ipv4", "10.9.0.0/16", "10.9.7.0/24", "lan0"} {
		if !strings.Contains(f.Message, want) {
			t.Errorf("%q does not name %s", f.Message, want)
		}
	}
	// What the lanes themselves have is no obstacle to a restart.
	must(t, links.Delete("lan0"), links.AddBridge("wg0"), links.SetUp("wg0"), links.AddAddr("wg0", netip.MustParsePrefix("10.8.0.1/16")))
	must(t, check())
}
