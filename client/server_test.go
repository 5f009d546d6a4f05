//go:build linux

package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"vpnd/client/gate/gatetest"
	"vpnd/pkg/api/client"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// target is an address that only the server has: it is reached through the
// tunnel or not at all.
const target = "192.0.2.10"

// serverMain is the program vpnserver: a VPN server of one device, for a machine
// of a lab. It takes orders on standard input, line by line, and answers each
// with a line.
func serverMain() int {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type vpnServer struct {
	api  *gatetest.Server
	devs map[string]*wgdev.Device
	cfgs client.Lanes
}

func serve() error {
	s := &vpnServer{devs: map[string]*wgdev.Device{}}
	ctx := context.Background()
	links, err := link.Open()
	if err != nil {
		return err
	}
	for _, l := range []struct {
		name, v4, v6 string
		port         uint16
		lane         *client.LaneConfig
	}{
		{"wgs0", "10.8.0.1/16", "fd76:706e:6408::1/64", 51820, &s.cfgs.VPN},
		{"wgs1", "10.9.0.1/16", "fd76:706e:6409::1/64", 51821, &s.cfgs.Tor},
	} {
		dev, err := wgdev.NewInProcess(l.name, 1420)
		if err != nil {
			return err
		}
		key, err := wgdev.GeneratePrivateKey()
		if err != nil {
			return err
		}
		if err := dev.Configure(ctx, wgdev.Config{PrivateKey: key, ListenPort: l.port}); err != nil {
			return err
		}
		v4, v6 := netip.MustParsePrefix(l.v4), netip.MustParsePrefix(l.v6)
		err = links.Apply(ctx, link.Interface{Name: l.name, MTU: 1420, Addresses: []netip.Prefix{v4, v6}, Up: true})
		if err != nil {
			return err
		}
		s.devs[l.name] = dev
		psk, err := wgdev.GeneratePresharedKey()
		if err != nil {
			return err
		}
		*l.lane = client.LaneConfig{
			// A name, so that looking it up around the tunnel is part of the test.
			Endpoint: fmt.Sprintf("server:%d", l.port), ServerPublicKey: key.Public().String(), PresharedKey: psk.Reveal(),
			Addresses:  []string{v4.Addr().Next().String() + "/32", v6.Addr().Next().String() + "/128"},
			AllowedIPs: []string{"0.0.0.0/0", "::/0"}, DNS: []string{v4.Addr().String()}, MTU: 1420, PersistentKeepalive: 25,
			ControlURL: "https://" + v4.Addr().String() + ":4605",
		}
	}
	if err := links.AddAddr("wgs0", netip.MustParsePrefix(target+"/32")); err != nil {
		return err
	}
	go func() {
		_ = http.ListenAndServe(target+":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprint(w, host)
		}))
	}()
	s.api, err = gatetest.New(gatetest.Config{
		// Short, so that heartbeats and renewals happen while somebody looks.
		HeartbeatTTL: 2, AccessTTL: 9 * time.Second,
		Lanes: s.cfgs, Opened: s.opened, Closed: s.closed,
		LaneStates: &client.LaneStates{
			VPN: client.LaneState{State: "up"},
			Tor: client.LaneState{State: "maintenance", Reason: "back at noon", Exits: []string{"de", "nl"}, Strict: true, ExitCountry: "de"},
		},
	})
	if err != nil {
		return err
	}
	if err := s.api.Listen("[::]:4605"); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println(s.api.Pin())
	for in.Scan() {
		answer, err := s.order(strings.Fields(in.Text()))
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Println(answer)
	}
	return nil
}

func (s *vpnServer) order(words []string) (string, error) {
	switch words[0] {
	case "end":
		s.api.End(words[1])
	case "stop":
		return "ok", s.api.Stop()
	case "listen":
		return "ok", s.api.Listen("[::]:4605")
	case "deaf": // the tunnel's end is gone, the API is not
		for name, d := range s.devs {
			if err := d.Remove(context.Background(), s.peers(name)...); err != nil {
				return "", err
			}
		}
		s.cfgs = client.Lanes{}
	case "calls":
		return fmt.Sprint(s.api.Calls(words[1])), nil
	case "sessions":
		b, err := json.Marshal(s.api.Sessions())
		return string(b), err
	}
	return "ok", nil
}

func (s *vpnServer) peers(name string) []wgdev.Key {
	states, _ := s.devs[name].Peers(context.Background())
	var keys []wgdev.Key
	for _, p := range states {
		keys = append(keys, p.PublicKey)
	}
	return keys
}

func (s *vpnServer) opened(publicKey string) error {
	key, err := wgdev.ParsePublicKey(publicKey)
	if err != nil {
		return err
	}
	for name, lane := range map[string]client.LaneConfig{"wgs0": s.cfgs.VPN, "wgs1": s.cfgs.Tor} {
		if len(lane.Addresses) == 0 {
			continue // deaf
		}
		psk, err := wgdev.ParsePresharedKey(lane.PresharedKey)
		if err != nil {
			return err
		}
		peer := wgdev.Peer{PublicKey: key, PresharedKey: psk}
		for _, a := range lane.Addresses {
			peer.AllowedIPs = append(peer.AllowedIPs, netip.MustParsePrefix(a))
		}
		if err := s.devs[name].Upsert(context.Background(), peer); err != nil {
			return err
		}
	}
	return nil
}

func (s *vpnServer) closed(publicKey string) {
	key, err := wgdev.ParsePublicKey(publicKey)
	if err != nil {
		return
	}
	for _, d := range s.devs {
		_ = d.Remove(context.Background(), key) // the device is ours alone
	}
}
