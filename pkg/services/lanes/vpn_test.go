//go:build linux

package lanes_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "vpnd/pkg/api/lanes"
)

func (s *server) switchVPN(up bool) (lane *api.Lane, err error) {
	s.doAs("control", func() {
		req := &api.SwitchRequest{}
		req.Body.Up = up
		lane, err = api.Switch.Call(s.t.Context(), s.conn, req)
	})
	return lane, err
}

// way connects a device and a site beyond the server, and tells whether datagrams
// get from the one to the other, and to the gateway.
func (s *server) way() (toSite, toGateway func() bool) {
	device, site := s.newClient(), s.newClient() // at 198.18.2.2 and 198.18.3.2
	_, err := s.sync(device.peer, site.peer)
	must(s.t, err)
	device.reroute(s, api.VPN, device.peer.PresharedKey, "10.8.0.0/16", "198.18.3.0/24")
	must(s.t, device.in().AddRoute(netip.MustParsePrefix("198.18.3.0/24"), netip.Addr{}, "wgc0"))
	from := device.inner.String()
	toSite = func() bool { return passes(s.t, device.ns, from, site.ns, "198.18.3.2") }
	toGateway = func() bool {
		p := device.ping()
		defer p.stop()
		p.flows(1)
		return true
	}
	return toSite, toGateway
}

func TestTheOperatorTakesLaneVPNDownAndUp(t *testing.T) {
	s := newServer(t)
	s.run()
	toSite, toGateway := s.way()
	if !toSite() {
		t.Fatal("nothing passes, so the rest proves nothing")
	}
	down, err := s.switchVPN(false)
	must(t, err)
	if down.State != "down" || !strings.Contains(down.Reason, "operator") {
		t.Errorf("lane %+v", down)
	}
	if toSite() || !toGateway() {
		t.Error("down, and something passes or the gateway is not reached")
	}
	if !strings.HasPrefix(s.said("lane.changed"), "lane.changed down: ") {
		t.Error("nobody was told")
	}
	for range 2 { // a restart keeps it, and does not open it for a moment
		s.kill()
		s.spawn()
		eventually(t, "the lane", func() bool { return s.lane(api.VPN).State == "down" && s.lane(api.VPN).Backend != "none" })
		if got := s.lane(api.VPN); !strings.Contains(got.Reason, "operator") || got.PublicKey == "" {
			t.Errorf("lane %+v", got)
		}
		if toSite() {
			t.Error("a restart brought it up")
		}
	}
	up, err := s.switchVPN(true)
	must(t, err)
	if up.State != "up" || up.Reason != "" || !toSite() {
		t.Errorf("lane %+v", up)
	}
	if e := s.said("firewall.repaired"); e != "" {
		t.Errorf("own changes pass for damage: %s", e)
	}
}

func TestABrokenSwitchKeepsLaneVPNDown(t *testing.T) {
	s := newServer(t)
	s.run()
	toSite, _ := s.way()
	path := filepath.Join(s.role.StateDir, "lane-vpn")
	for _, broken := range []string{"", "u", "up", "UP\n", "up\nup\n", "{}", strings.Repeat("up\n", 1000)} {
		s.stop()
		must(t, os.WriteFile(path, []byte(broken), 0o600))
		s.spawn()
		eventually(t, "the reason", func() bool { l := s.lane(api.VPN); return l.State == "down" && strings.Contains(l.Reason, path) })
	}
	if toSite() {
		t.Error("something passes")
	}
	s.stop()
	must(t, os.Remove(path), os.Mkdir(path, 0o700)) // cannot even be read
	s.spawn()
	eventually(t, "the reason", func() bool { l := s.lane(api.VPN); return l.State == "down" && strings.Contains(l.Reason, path) })
	if _, err := s.switchVPN(true); err == nil || s.lane(api.VPN).State != "down" {
		t.Errorf("came up although that cannot be kept: %v", err)
	}
	must(t, os.Remove(path))
	if _, err := s.switchVPN(true); err != nil || !toSite() {
		t.Errorf("does not come up again: %v", err)
	}
}
