//go:build linux

package lanes_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/fault"
	"vpnd/pkg/wgdev"
)

// reroute tells a device which networks it reaches through a lane.
func (c *client) reroute(s *server, name api.Name, presharedKey string, nets ...string) {
	c.t.Helper()
	lane := s.lane(name)
	key, err := wgdev.ParsePublicKey(lane.PublicKey)
	must(c.t, err)
	p := wgdev.Peer{PublicKey: key, Endpoint: netip.AddrPortFrom(netip.MustParseAddr("198.18.2.1"), uint16(lane.Port))}
	if presharedKey != "" {
		p.PresharedKey, err = wgdev.ParsePresharedKey(presharedKey)
		must(c.t, err)
	}
	for _, n := range nets {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(n))
	}
	must(c.t, c.dev.Upsert(c.t.Context(), p))
}

func (s *server) putCanary(key string) (out *api.CanaryCounts, err error) {
	s.doAs("canary", func() {
		req := &api.CanaryRequest{}
		req.Body.PublicKey = key
		out, err = api.PutCanary.Call(s.t.Context(), s.conn, req)
	})
	return out, err
}

func (s *server) canary() *api.CanaryCounts {
	s.t.Helper()
	var out *api.CanaryCounts
	s.doAs("canary", func() {
		var err error
		out, err = api.GetCanary.Call(s.t.Context(), s.conn, nil)
		must(s.t, err)
	})
	return out
}

// nft runs the program of that name like an operator would.
func (s *server) nft(args ...string) {
	s.t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		s.t.Skip("needs the program nft")
	}
	var out []byte
	if err := s.ns.Do(func() (err error) { out, err = exec.Command(path, args...).CombinedOutput(); return err }); err != nil {
		s.t.Fatalf("nft %v: %v: %s", args, err, out)
	}
}

func TestTheCanarysPeerIsNobodyElses(t *testing.T) {
	s := newServer(t)
	s.run()
	a, key := newPeer(2), newPeer(3).PublicKey
	_, err := s.sync(a)
	must(t, err)
	counts, err := s.putCanary(key)
	must(t, err)
	want := api.Peer{
		Device: "canary", PublicKey: key, PresharedKey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		VPN: counts.Addrs[api.VPN], Tor: counts.Addrs[api.Tor],
	}
	if got := want.VPN[0].String(); got != "10.8.255.254" || want.Tor[1].String() != "fd76:706e:6409:0:ffff:ffff:ffff:ffff" {
		t.Errorf("addresses %v", counts.Addrs)
	}
	has := func(peers ...api.Peer) {
		t.Helper()
		for _, name := range []api.Name{api.VPN, api.Tor} {
			got := s.keys(name)
			if len(got) != len(peers) {
				t.Errorf("lane %s has %d peers, want %d", name, len(got), len(peers))
			}
			for _, p := range peers {
				if g, ok := got[p.PublicKey]; !ok || len(g.AllowedIPs) != 2 {
					t.Errorf("lane %s: %s is %+v", name, p.Device, g)
				}
			}
		}
	}
	has(a, want)
	if n := counts.Lanes[0].Peers; n != 1 {
		t.Errorf("%d peers are reported", n)
	}
	for range 2 {
		synced, err := s.sync(a)
		must(t, err)
		if synced.Added+synced.Changed+synced.Removed != 0 {
			t.Errorf("synced %+v", synced)
		}
	}
	has(a, want)
	stats, err := api.Stats.Call(t.Context(), s.conn, nil)
	must(t, err)
	if len(stats.Peers) != 1 {
		t.Errorf("stats %+v", stats)
	}
	thief := newPeer(4)
	thief.PublicKey = key
	if err := s.put(thief); !errors.Is(err, fault.Invalid) {
		t.Errorf("a device with the key: %v", err)
	}
	_, err = s.remove(thief)
	must(t, err)
	has(a, want)
	if _, err := s.putCanary(a.PublicKey); !errors.Is(err, fault.Conflict) {
		t.Errorf("the key of a device: %v", err)
	}

	must(t, syscall.Kill(s.daemon("wgl1"), syscall.SIGKILL))
	_, err = s.sync(a) // waits for the new interface
	must(t, err)
	has(a, want)
	other := want
	other.PublicKey = newPeer(5).PublicKey
	_, err = s.putCanary(other.PublicKey)
	must(t, err)
	has(a, other)
	_, err = s.putCanary("")
	must(t, err)
	has(a)
}

// TestALeakIsCounted is what the counters are for: the guard is stopped, all locks
// are broken by hand, and the canary gets out.
func TestALeakIsCounted(t *testing.T) {
	s := newServer(t)
	s.run()
	device, site := s.newClient(), s.newClient()
	_, err := s.sync(site.peer)
	must(t, err)
	counts, err := s.putCanary(device.peer.PublicKey)
	must(t, err)
	source := counts.Addrs[api.Tor][0]
	device.reroute(s, api.Tor, "", "10.9.0.1/32", "198.18.3.0/24")
	must(t, device.in().AddAddr("wgc0", netip.PrefixFrom(source, 16)),
		device.in().AddRoute(netip.MustParsePrefix("198.18.3.0/24"), netip.Addr{}, "wgc0"),
		site.in().AddRoute(netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("198.18.3.1"), "eth0"))
	toSite := func() bool { return passes(t, device.ns, source.String(), site.ns, "198.18.3.2") }
	toHost := func() bool { return passes(t, device.ns, source.String(), s.ns, "10.9.0.1") }
	if toSite() || toHost() {
		t.Fatal("a leak although all is in place")
	}
	if got := s.canary(); got.Left[api.Tor]+got.Left[api.VPN]+got.Reached[api.Tor]+got.Reached[api.VPN]+got.Repairs != 0 {
		t.Fatalf("counted without a leak: %+v", got)
	}

	must(t, s.cmd.Process.Signal(syscall.SIGSTOP)) // nobody repairs
	for _, chain := range []string{"c_gate", "c_forward", "c_egress", "c_input"} {
		s.nft("insert", "rule", "inet", "vpnd", chain, "accept")
	}
	must(t, s.links.Unprohibit("wgl1"))
	if !toSite() || !toHost() {
		t.Fatal("no leak although all locks are broken")
	}
	must(t, s.cmd.Process.Signal(syscall.SIGCONT))
	eventually(t, "both repairs", func() bool { return s.canary().Repairs >= 2 })
	got := s.canary()
	if got.Left[api.Tor] == 0 || got.Reached[api.Tor] == 0 || got.Left[api.VPN]+got.Reached[api.VPN] != 0 || got.Repaired == "" {
		t.Errorf("got %+v", got)
	}
	if toSite() || toHost() {
		t.Error("not repaired")
	}
	if again := s.canary(); again.Left[api.Tor] != got.Left[api.Tor] || again.Repairs != got.Repairs {
		t.Errorf("counts without a leak: %+v, then %+v", got, again)
	}
	s.stop() // the next run begins with nothing
	s.run()
	if got := s.canary(); got.Left[api.Tor] != 0 || got.Repairs != 0 {
		t.Errorf("after a restart: %+v", got)
	}
}

func TestAnOperatorsFlushIsRepairedAndCounted(t *testing.T) {
	s := newServer(t)
	s.run()
	for i, damage := range []func(){
		func() { s.nft("flush", "ruleset") },
		func() { s.nft("flush", "chain", "inet", "vpnd", "c_forward") },
		func() { s.nft("delete", "table", "inet", "vpnd_canary") },
	} {
		damage()
		eventually(t, "the repair", func() bool { return s.canary().Repairs == uint64(i+1) })
	}
	must(t, s.links.Unprohibit("wgl1"))
	// A rule of each family goes, one after the other, so there may be one repair or two.
	eventually(t, "the repair", func() bool { n := s.canary().Repairs; return (n == 4 || n == 5) && s.sealed() })
	eventually(t, "the report", func() bool { return s.said("firewall.repaired") != "" })
	if e := s.said("firewall.repaired"); !strings.Contains(e, "table inet vpnd is missing") {
		t.Errorf("event %q", e)
	}
	if got := s.canary(); !strings.Contains(got.Repaired, "routing rule of wgl1") {
		t.Errorf("last repaired %q", got.Repaired)
	}
}
