package sessions_test

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/services/sessions"
)

func TestOwnerOfAnAddress(t *testing.T) {
	inBubble(t, func(w *world) {
		none := func(when string, addr netip.Addr) {
			t.Helper()
			_, err := w.Owner(addr)
			wantFault(t, when, err, fault.NotFound, "no_session")
		}
		owned := func(when string, s api.Session) {
			t.Helper()
			for _, lane := range [][]netip.Addr{{s.VPNIPv4, s.VPNIPv6}, {s.TorIPv4, s.TorIPv6}} {
				for _, addr := range append(lane, netip.AddrFrom16(lane[0].As16()), lane[1].WithZone("wg1")) {
					got, err := w.Owner(addr)
					if err != nil || got.Session != s.ID || got.User != s.User || got.Username != s.Username || got.Device != s.Device ||
						got.DeviceName != s.DeviceName || !slices.Equal(got.Addresses, lane) {
						t.Errorf("%s: %s is of %+v, %v", when, addr, got, err)
					}
				}
			}
		}
		none("nobody is there", netip.MustParseAddr("10.9.0.1"))
		none("no address", netip.Addr{})
		w.openAs("alice", "a1", newKey())
		w.openAs("bob", "b1", newKey())
		alice, bob := w.get("a1"), w.get("b1")
		owned("opened", alice)
		owned("opened", bob)
		w.restart()
		owned("after a crash", alice)

		// The device's next session has the same addresses; the former must not
		// take them along when it goes.
		w.openAs("alice", "a1", newKey())
		next := w.get("a1")
		if next.ID == alice.ID || next.TorIPv4 != alice.TorIPv4 {
			t.Fatalf("got %+v after %+v", next, alice)
		}
		owned("replaced", next)
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false); err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Addr{alice.VPNIPv4, alice.VPNIPv6, alice.TorIPv4, alice.TorIPv6} {
			none("closed", a)
		}
		owned("somebody else's close", bob)
	})
}

// The address travels as text; it is asked for over the socket like everything
// else.
func TestOwnerOverTheSocket(t *testing.T) {
	w := newWorld(t)
	w.openAs("alice", "a1", newKey())
	want := w.get("a1")
	conn := w.serve(t, "tor")
	for _, addr := range []netip.Addr{want.TorIPv4, want.TorIPv6} {
		got, err := api.GetOwner.Call(t.Context(), conn, &api.OwnerRequest{Address: addr})
		if err != nil || got.Session != want.ID {
			t.Errorf("%s: got %+v, %v", addr, got, err)
		}
	}
	_, err := api.GetOwner.Call(t.Context(), conn, &api.OwnerRequest{Address: netip.MustParseAddr("10.9.200.1")})
	wantFault(t, "nobody's", err, fault.NotFound, "no_session")
	conn = w.serve(t, "gateway")
	_, err = api.GetLanes.Call(t.Context(), conn, &api.LanesRequest{User: "alice", Device: "a2"})
	wantFault(t, "lanes of a device without a session", err, fault.NotFound, "no_session")
	if l, err := api.GetLanes.Call(t.Context(), conn, &api.LanesRequest{User: "alice", Device: "a1"}); err != nil || l.Tor.ExitCountry != "de" {
		t.Errorf("got %+v, %v", l, err)
	}
}

// serve offers the sessions of w to a sibling, on a Unix socket.
func (w *world) serve(t testing.TB, caller string) *rpc.Conn {
	t.Helper()
	s := rpc.NewServer(rpc.ServerConfig{Name: "sessions", Identify: func(rpc.PeerCred) (rpc.Caller, error) {
		return rpc.Caller{Name: caller, Access: rpc.Internal}, nil
	}})
	sessions.Register(s, w.Manager)
	path := filepath.Join(w.dir, caller+".sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	conn := rpc.DialUnix("sessions", path, rpc.Options{})
	t.Cleanup(func() {
		conn.CloseIdle()
		cancel()
		<-done
	})
	return conn
}

func TestLaneStatesForADevice(t *testing.T) {
	inBubble(t, func(w *world) {
		_, err := w.LaneStates(w.t.Context(), "alice", "a1")
		wantFault(t, "no session", err, fault.NotFound, "no_session")
		w.openAs("alice", "a1", newKey())
		_, err = w.LaneStates(w.t.Context(), "bob", "a1")
		wantFault(t, "somebody else's", err, fault.NotFound, "no_session")

		got, err := w.LaneStates(w.t.Context(), "alice", "a1")
		if err != nil || got.VPN.State != "up" || got.Tor.State != "up" || !got.Tor.Strict || got.Tor.ExitCountry != "de" ||
			!slices.Equal(got.Tor.Exits, []string{"alice", "de"}) {
			t.Errorf("got %+v, %v", got, err)
		}
		w.siblings.mu.Lock()
		w.laneState["vpn"], w.laneState["tor"] = "down", "blocked"
		w.siblings.mu.Unlock()
		got, err = w.LaneStates(w.t.Context(), "alice", "a1")
		if err != nil || got.VPN.State != "down" || got.VPN.Reason != "lanes says" || got.Tor.State != "blocked" || got.Tor.Reason != "lanes says" {
			t.Errorf("tor says up, lanes has it blocked: got %+v, %v", got, err)
		}
		for _, how := range []outcome{refused, hung} {
			began := time.Now()
			w.setFate(only(how, "view"))
			got, err = w.LaneStates(w.t.Context(), "alice", "a1")
			if err != nil || got.VPN.State != "down" || got.Tor.State != "unknown" || got.Tor.Reason == "" {
				t.Errorf("without tor: got %+v, %v", got, err)
			}
			w.setFate(only(how, "interfaces"))
			got, err = w.LaneStates(w.t.Context(), "alice", "a1")
			if err != nil || got.VPN.State != "unknown" || got.VPN.Reason == "" || got.Tor.State != "up" {
				t.Errorf("without lanes: got %+v, %v", got, err)
			}
			w.setFate(only(how, "interfaces", "view"))
			got, err = w.LaneStates(w.t.Context(), "alice", "a1")
			if err != nil || got.VPN.State != "unknown" || got.Tor.State != "unknown" {
				t.Errorf("without both: got %+v, %v", got, err)
			}
			if took := time.Since(began); took > 3*time.Second { // of the bubble's clock
				t.Errorf("three questions took %s", took)
			}
		}
	})
}

func BenchmarkOwner(b *testing.B) {
	w := newWorld(b)
	const devices = 2000
	for range devices {
		dev := id.NewDevice()
		w.addUser("alice", dev)
		w.openAs("alice", dev, newKey())
	}
	all := w.listed()
	conn := w.serve(b, "tor")
	b.Run("memory", func(b *testing.B) {
		for i := range b.N {
			if _, err := w.Owner(all[i%devices].TorIPv6); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("socket", func(b *testing.B) {
		for i := range b.N {
			if _, err := api.GetOwner.Call(b.Context(), conn, &api.OwnerRequest{Address: all[i%devices].TorIPv4}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
