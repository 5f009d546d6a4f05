package sessions_test

import (
	"context"
	"encoding/base64"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

func TestOpenGivesWhatADeviceNeeds(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		got := w.openAs("alice", "a1", key)
		p := w.peers()[key]
		want := &client.Initiated{
			SessionID: got.SessionID, HeartbeatTTL: 90, HardTTL: 24 * 3600,
			Lanes: client.Lanes{
				VPN: client.LaneConfig{
					Endpoint: "vpn.example.org:51820", ServerPublicKey: w.keys[lanes.VPN], PresharedKey: p.PresharedKey,
					Addresses: []string{"10.8.0.1/32", "fd08::1/128"}, AllowedIPs: []string{"0.0.0.0/0", "::/0"},
					DNS: []string{"9.9.9.9"}, MTU: 1420, PersistentKeepalive: 25, ControlURL: "https://10.8.0.1:4605",
				},
				Tor: client.LaneConfig{
					Endpoint: "vpn.example.org:51821", ServerPublicKey: w.keys[lanes.Tor], PresharedKey: p.PresharedKey,
					Addresses: []string{"10.9.0.1/32", "fd09::1/128"}, AllowedIPs: []string{"0.0.0.0/0", "::/0"},
					DNS: []string{"10.9.0.1", "fd09::1"}, MTU: 1420, PersistentKeepalive: 25, ControlURL: "https://10.9.0.1:4605",
				},
			},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if len(p.PresharedKey) != 44 {
			t.Errorf("preshared key %q", p.PresharedKey)
		}
		s := w.get(string(got.SessionID))
		if s.State != api.Online || s.Reason != api.Connected || s.Username != "name-alice" || s.DeviceName != "box-a1" || s.Remote != "203.0.113.9" {
			t.Errorf("session %+v", s)
		}
		w.agrees()
		if d := cmp.Diff([]string{"session.opened connected"}, w.events()); d != "" {
			t.Error(d)
		}
	})
}

func TestOpenAgainIsTheSameSession(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		first := w.openAs("alice", "a1", key)
		time.Sleep(time.Hour)
		again := w.openAs("alice", "a1", key)
		first.HardTTL -= 3600
		if d := cmp.Diff(first, again); d != "" {
			t.Error(d)
		}
		if n := w.count("put"); n != 1 {
			t.Errorf("lanes was told %d times", n)
		}
		w.agrees()
	})
}

func TestOpenWithANewKeyReplaces(t *testing.T) {
	inBubble(t, func(w *world) {
		old, fresh := newKey(), newKey()
		first := w.openAs("alice", "a1", old)
		time.Sleep(5 * time.Second)
		w.traffic(old, 100, 200)
		second := w.openAs("alice", "a1", fresh)
		if first.SessionID == second.SessionID {
			t.Error("same session")
		}
		if first.Lanes.VPN.Addresses[0] != second.Lanes.VPN.Addresses[0] {
			t.Error("other addresses")
		}
		s := w.get(string(first.SessionID))
		if s.State != api.Closed || s.Reason != api.Replaced || s.RxBytes != 100 || s.TxBytes != 200 {
			t.Errorf("replaced session %+v", s)
		}
		if !s.ClosedAt.Equal(w.get(string(second.SessionID)).OpenedAt) {
			t.Error("the one did not end when the other began")
		}
		w.agrees()
		w.settle()
		if s := w.get(string(second.SessionID)); s.RxBytes != 0 {
			t.Errorf("the new session has bytes of the old one: %+v", s)
		}
		if u := w.total("alice"); u.RxBytes != 100 || u.TxBytes != 200 || u.Sessions != 1 {
			t.Errorf("totals %+v", u)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	inBubble(t, func(w *world) {
		bobs := newKey()
		w.openAs("bob", "b1", bobs)
		w.addUser("sue", "s1")
		w.setStatus("sue", users.Suspended)
		w.addUser("del", "d1")
		w.setStatus("del", users.Deleting)
		zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
		one := base64.StdEncoding.EncodeToString(append([]byte{1}, make([]byte, 31)...))
		for _, tc := range []struct {
			name   string
			user   id.User
			device id.Device
			key    string
			code   fault.Code
			reason string
		}{
			{"no key", "alice", "a1", "", fault.Invalid, "public_key"},
			{"31 bytes", "alice", "a1", base64.StdEncoding.EncodeToString(make([]byte, 31)), fault.Invalid, "public_key"},
			{"all zero", "alice", "a1", zero, fault.Invalid, "public_key"},
			{"low order", "alice", "a1", one, fault.Invalid, "public_key"},
			{"server's key, vpn", "alice", "a1", w.keys[lanes.VPN], fault.Invalid, "public_key"},
			{"server's key, tor", "alice", "a1", w.keys[lanes.Tor], fault.Invalid, "public_key"},
			{"another device's key", "alice", "a1", bobs, fault.Conflict, "public_key_in_use"},
			{"suspended", "sue", "s1", newKey(), fault.Denied, "suspended"},
			{"being deleted", "del", "d1", newKey(), fault.Unauthenticated, "unknown_user"},
			{"unknown user", "eve", "e1", newKey(), fault.Unauthenticated, "unknown_user"},
			{"unknown device", "alice", "a9", newKey(), fault.Unauthenticated, "device_deleted"},
			{"another user's device", "alice", "b1", newKey(), fault.Unauthenticated, "device_deleted"},
		} {
			_, err := w.Open(w.t.Context(), request(tc.user, tc.device, tc.key))
			wantFault(t, tc.name, err, tc.code, tc.reason)
			if f := fault.From(err); (tc.reason == "public_key" || tc.reason == "public_key_in_use") && (len(f.Fields) != 1 || f.Fields[0].Path != "body.public_key") {
				t.Errorf("%s: fields %+v", tc.name, f.Fields)
			}
		}
		if got := w.listed(); len(got) != 1 {
			t.Errorf("open: %+v", got)
		}
		w.agrees()
	})
}

func TestAKeyBelongsToTheDeviceThatUsedItLast(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false); err != nil {
			t.Fatal(err)
		}
		_, err := w.Open(w.t.Context(), request("bob", "b1", key))
		wantFault(t, "closed session's key", err, fault.Conflict, "public_key_in_use")
		w.restart()
		synctest.Wait()
		_, err = w.Open(w.t.Context(), request("bob", "b1", key))
		wantFault(t, "after a restart", err, fault.Conflict, "public_key_in_use")
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.DeviceDeleted, true); err != nil {
			t.Fatal(err)
		}
		w.openAs("bob", "b1", key) // the device it belonged to is no more
		w.agrees()
	})
}

func TestOpenUndoesItselfWhenLanesFail(t *testing.T) {
	for _, o := range []outcome{refused, lost, hung, doneHung} {
		inBubble(t, func(w *world) {
			key := newKey()
			w.setFate(only(o, "put"))
			if _, err := w.Open(w.t.Context(), request("alice", "a1", key)); fault.CodeOf(err) != fault.Unavailable && fault.CodeOf(err) != fault.Timeout {
				t.Errorf("outcome %d: got %v", o, err)
			}
			if got := w.listed(); len(got) != 0 {
				t.Errorf("outcome %d: open %+v", o, got)
			}
			lease, ok := w.leases["a1"]
			if !ok {
				t.Errorf("outcome %d: the lease is not kept", o)
			}
			w.settle()
			if n := len(w.peers()); n != 0 {
				t.Errorf("outcome %d: %d peers", o, n)
			}
			w.agrees()
			w.setFate(nil)
			if got := w.openAs("alice", "a1", key); got.Lanes.VPN.Addresses[0] != lease.VPN.IPv4.String()+"/32" {
				t.Errorf("outcome %d: other addresses: %v", o, got.Lanes.VPN.Addresses)
			}
			w.settle()
			w.agrees()
			if w.total("alice").Sessions != 0 {
				t.Error("a failed attempt counts as a session")
			}
		})
	}
}

func TestOpenFailsCleanlyWhenAnySiblingFails(t *testing.T) {
	for _, op := range []string{"account", "device", "acquire", "interfaces"} {
		for _, o := range []outcome{refused, hung} {
			inBubble(t, func(w *world) {
				w.setFate(only(o, op))
				if op == "interfaces" { // asked once an epoch
					w.restartLanes()
					w.settle()
				}
				if _, err := w.Open(w.t.Context(), request("alice", "a1", newKey())); err == nil {
					t.Errorf("%s: opened", op)
				}
				w.settle()
				w.agrees()
				w.setFate(nil)
				w.openAs("alice", "a1", newKey())
				w.agrees()
			})
		}
	}
}

func TestReplaceThatFailsLeavesNeither(t *testing.T) {
	for _, op := range []string{"put", "remove"} {
		for _, o := range []outcome{refused, lost, hung} {
			inBubble(t, func(w *world) {
				old, fresh := newKey(), newKey()
				w.openAs("alice", "a1", old)
				w.setFate(only(o, op))
				if _, err := w.Open(w.t.Context(), request("alice", "a1", fresh)); err == nil {
					t.Fatalf("%s %d: opened", op, o)
				}
				w.setFate(nil)
				w.settle()
				if n := len(w.peers()); n != 0 {
					t.Errorf("%s %d: %d peers", op, o, n)
				}
				w.agrees()
			})
		}
	}
}

func TestOpenWaitsForNobodyElse(t *testing.T) {
	inBubble(t, func(w *world) {
		w.setFate(only(hung, "put"))
		var stuck sync.WaitGroup
		stuck.Go(func() { _, _ = w.Open(w.t.Context(), request("alice", "a1", newKey())) })
		synctest.Wait()
		w.setFate(nil)
		start := time.Now()
		w.openAs("alice", "a2", newKey())
		w.openAs("bob", "b1", newKey())
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %s", d)
		}
		// The same device waits for its turn, and gives up when its caller does.
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if _, err := w.Open(ctx, request("alice", "a1", newKey())); fault.CodeOf(err) != fault.Timeout {
			t.Errorf("got %v", err)
		}
		stuck.Wait()
		w.settle()
		w.agrees()
	})
}

func TestExpiredSessionIsNotGivenAgain(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		first := w.openAs("alice", "a1", key)
		w.setFate(only(hung, "stats", "epoch")) // nothing else depends on these
		time.Sleep(24*time.Hour - time.Millisecond)
		if again := w.openAs("alice", "a1", key); again.SessionID != first.SessionID || again.HardTTL != 0 {
			t.Errorf("got %+v", again)
		}
		w.setFate(nil)
		time.Sleep(2 * time.Millisecond)
		second := w.openAs("alice", "a1", key)
		if second.SessionID == first.SessionID || second.HardTTL != 24*3600 {
			t.Errorf("got %+v", second)
		}
		w.settle()
		w.agrees()
		if s := w.get(string(first.SessionID)); s.Reason != api.Expired {
			t.Errorf("reason %s", s.Reason)
		}
	})
}

func TestNewServerKeysAreToldAfterLanesRestarts(t *testing.T) {
	inBubble(t, func(w *world) {
		w.openAs("alice", "a1", newKey())
		w.restartLanes()
		w.siblings.mu.Lock()
		w.keys[lanes.VPN] = newKey() // the operator deleted the key file
		want := w.keys[lanes.VPN]
		w.siblings.mu.Unlock()
		if got := w.openAs("bob", "b1", newKey()); got.Lanes.VPN.ServerPublicKey != want {
			t.Error("the old key was told")
		}
	})
}
