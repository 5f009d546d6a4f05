package tunnel_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"vpnd/client/tunnel"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/wgdev"
)

func lane(t testing.TB) client.LaneConfig {
	k, err := wgdev.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return client.LaneConfig{
		Endpoint: "vpn.example.org:51820", ServerPublicKey: k.Public().String(),
		Addresses: []string{"10.8.0.2/32", "fd76::2/128"}, AllowedIPs: []string{"0.0.0.0/0", "::/0"},
		DNS: []string{"9.9.9.9", "2620:fe::fe"}, MTU: 1420, PersistentKeepalive: 25, ControlURL: "https://10.8.0.1:4605",
	}
}

func TestParseLane(t *testing.T) {
	got, err := tunnel.ParseLane(lane(t))
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "vpn.example.org" || got.Port != 51820 || got.Peer.Keepalive != 25*time.Second ||
		len(got.Addresses) != 2 || len(got.Peer.AllowedIPs) != 2 || len(got.DNS) != 2 || got.Control.String() != "10.8.0.1:4605" {
		t.Errorf("got %+v", got)
	}
}

func TestParseLaneNamesWhatIsWrong(t *testing.T) {
	for field, spoil := range map[string]func(*client.LaneConfig){
		"endpoint":             func(c *client.LaneConfig) { c.Endpoint = "vpn.example.org" },
		"endpoint ":            func(c *client.LaneConfig) { c.Endpoint = "vpn.example.org:0" },
		"server_public_key":    func(c *client.LaneConfig) { c.ServerPublicKey = "x" },
		"preshared_key":        func(c *client.LaneConfig) { c.PresharedKey = "x" },
		"addresses":            func(c *client.LaneConfig) { c.Addresses = nil },
		"addresses ":           func(c *client.LaneConfig) { c.Addresses = []string{"127.0.0.1/8"} },
		"addresses  ":          func(c *client.LaneConfig) { c.Addresses = []string{"10.8.0.2"} },
		"allowed_ips":          func(c *client.LaneConfig) { c.AllowedIPs = []string{"all"} },
		"allowed_ips ":         func(c *client.LaneConfig) { c.AllowedIPs = nil },
		"dns":                  func(c *client.LaneConfig) { c.DNS = []string{"9.9.9.9\noptions evil"} },
		"mtu":                  func(c *client.LaneConfig) { c.MTU = 100 },
		"persistent_keepalive": func(c *client.LaneConfig) { c.PersistentKeepalive = -1 },
	} {
		c := lane(t)
		spoil(&c)
		_, err := tunnel.ParseLane(c)
		if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), strings.TrimSpace(field)+":") {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for _, s := range []string{"", "http://10.8.0.1:4605", "https://gateway:4605", "https://127.0.0.1:4605", "https://10.8.0.1:0", "://"} {
		c := lane(t)
		c.ControlURL = s
		if got, err := tunnel.ParseLane(c); err != nil || got.Control.IsValid() {
			t.Errorf("control %q: got %v, %v", s, got.Control, err)
		}
	}
}

func FuzzParseLane(f *testing.F) {
	c := lane(f)
	f.Add(c.Endpoint, c.ServerPublicKey, c.PresharedKey, c.Addresses[0], c.AllowedIPs[1], c.DNS[0], c.MTU, c.PersistentKeepalive, c.ControlURL)
	f.Add("[::1]:1", c.ServerPublicKey, "", "fd00::1/64", "::ffff:0:0/96", "::1%eth0", 0, 70000, "https://[fe80::1%25x]")
	f.Fuzz(func(t *testing.T, endpoint, key, psk, addr, allowed, dns string, mtu, keepalive int, control string) {
		got, err := tunnel.ParseLane(client.LaneConfig{
			Endpoint: endpoint, ServerPublicKey: key, PresharedKey: psk, Addresses: []string{addr}, AllowedIPs: []string{allowed},
			DNS: []string{dns}, MTU: mtu, PersistentKeepalive: keepalive, ControlURL: control,
		})
		if err != nil {
			return
		}
		if got.Port == 0 || got.MTU < 1280 || !got.Addresses[0].IsValid() || got.DNS[0].Zone() != "" || got.Peer.AllowedIPs[0] != got.Peer.AllowedIPs[0].Masked() {
			t.Errorf("got %+v", got)
		}
	})
}
