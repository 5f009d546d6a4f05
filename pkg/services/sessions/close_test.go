package sessions_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

func TestCloseReturnsAfterThePeerIsGone(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		opened := w.openAs("alice", "a1", key)
		w.openAs("alice", "a2", newKey())
		time.Sleep(3 * time.Second)
		w.traffic(key, 7, 9) // not read by anybody before the close
		closed, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := w.peers()[key]; ok {
			t.Error("the peer is still there")
		}
		if closed.ID != opened.SessionID || closed.State != api.Closed || closed.Reason != api.ByUser || closed.RxBytes != 7 || closed.TxBytes != 9 {
			t.Errorf("got %+v", closed)
		}
		if d := cmp.Diff(*closed, w.get(string(closed.ID)), addrEqual); d != "" {
			t.Errorf("history differs: %s", d)
		}
		if again, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false); again != nil || err != nil {
			t.Errorf("closed twice: %v, %v", again, err)
		}
		if _, ok := w.leases["a1"]; !ok {
			t.Error("the lease was released")
		}
		w.agrees()
		if got := w.events(); !slices.Contains(got, "session.closed closed_by_user") {
			t.Errorf("events %v", got)
		}
	})
}

func TestForgetReleasesTheLease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.openAs("alice", "a1", newKey())
		w.openAs("alice", "a2", newKey())
		w.openAs("bob", "b1", newKey())
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.DeviceDeleted, true); err != nil {
			t.Fatal(err)
		}
		if _, err := w.CloseDevice(w.t.Context(), "a2", api.LoggedOut, false); err != nil {
			t.Fatal(err)
		}
		if len(w.leases) != 2 {
			t.Errorf("leases %v", w.leases)
		}
		n, err := w.CloseUser(w.t.Context(), "alice", api.UserDeleted, true) // nothing open, one lease
		if n != 0 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		if _, ok := w.leases["b1"]; !ok || len(w.leases) != 1 {
			t.Errorf("leases %v", w.leases)
		}
		w.agrees()
	})
}

func TestReleaseLease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.addUser("dora", "dev_d1")
		w.openAs("dora", "dev_d1", newKey())
		w.openAs("bob", "b1", newKey())
		if err := w.ReleaseLease(w.t.Context(), "name-bob/box-b1"); err != nil {
			t.Fatal(err)
		}
		if err := w.ReleaseLease(w.t.Context(), "dev_d1"); err != nil {
			t.Fatal(err)
		}
		if err := w.ReleaseLease(w.t.Context(), "nobody"); !errors.Is(err, fault.NotFound) {
			t.Errorf("got %v", err)
		}
		if len(w.leases) != 0 || len(w.listed()) != 0 {
			t.Errorf("leases %v, sessions %v", w.leases, w.listed())
		}
		w.agrees()
	})
}

func TestCloseWhileLanesIsDownSaysPendingAndFinishesLater(t *testing.T) {
	for _, o := range []outcome{refused, lost, hung, doneHung} {
		inBubble(t, func(w *world) {
			key := newKey()
			w.openAs("alice", "a1", key)
			w.setFate(only(o, "remove", "sync"))
			start := time.Now()
			_, err := w.CloseDevice(w.t.Context(), "a1", api.UserSuspended, false)
			wantFault(t, "close", err, fault.Unavailable, "peer_pending")
			if d := time.Since(start); d > 15*time.Second {
				t.Errorf("took %s", d)
			}
			if got := w.listed(); len(got) != 0 {
				t.Errorf("still open: %v", got)
			}
			if w.Overview().Closing != 1 && o != doneHung {
				t.Errorf("overview %+v", w.Overview())
			}
			// Asked again, it says the same until it is true.
			if _, err := w.CloseUser(w.t.Context(), "alice", api.UserSuspended, false); o != lost && o != doneHung {
				wantFault(t, "close again", err, fault.Unavailable, "peer_pending")
			}
			w.setFate(nil)
			time.Sleep(11 * time.Second) // one call may still hang
			synctest.Wait()
			if n := len(w.peers()); n != 0 {
				t.Errorf("outcome %d: %d peers", o, n)
			}
			w.agrees()
			if err := w.Ready(); err != nil {
				t.Errorf("not ready again: %v", err)
			}
		})
	}
}

func TestCloseAfterACrashInTheMiddleWaitsForTheFirstSync(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		w.setFate(only(refused, "remove", "sync", "epoch"))
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByAdmin, false); err == nil {
			t.Fatal("closed")
		}
		w.restart() // the new process knows nothing of the peer
		for name, again := range map[string]func() error{
			"device": func() error { _, err := w.CloseDevice(w.t.Context(), "a1", api.ByAdmin, true); return err },
			"user":   func() error { _, err := w.CloseUser(w.t.Context(), "alice", api.ByAdmin, true); return err },
		} {
			err := again()
			if f := fault.From(err); f.Reason != "peer_pending" {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if _, ok := w.leases["a1"]; !ok {
			t.Error("the lease of a peer that is still there was released")
		}
		w.setFate(nil)
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByAdmin, true); err != nil {
			t.Errorf("got %v", err)
		}
		if n := len(w.peers()); n != 0 {
			t.Errorf("%d peers", n)
		}
		w.agrees()
	})
}

func TestKill(t *testing.T) {
	inBubble(t, func(w *world) {
		first := w.openAs("alice", "a1", newKey())
		second := w.openAs("alice", "a1", newKey())
		// The first is closed already; killing it must not hit the second.
		got, err := w.Kill(w.t.Context(), string(first.SessionID))
		if err != nil || got.ID != first.SessionID || got.Reason != api.Replaced {
			t.Errorf("got %+v, %v", got, err)
		}
		if w.get(string(second.SessionID)).State != api.Online {
			t.Error("the other session was killed")
		}
		got, err = w.Kill(w.t.Context(), "name-alice")
		if err != nil || got.ID != second.SessionID || got.Reason != api.ByAdmin || len(w.peers()) != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
		if _, err := w.Kill(w.t.Context(), "name-alice"); !errors.Is(err, fault.NotFound) {
			t.Errorf("got %v", err)
		}
		// One that is closed while its peer is not gone is not reported as done.
		third := w.openAs("alice", "a1", newKey())
		w.setFate(only(refused, "remove", "sync"))
		_, err = w.Kill(w.t.Context(), string(third.SessionID))
		wantFault(t, "kill", err, fault.Unavailable, "peer_pending")
		_, err = w.Kill(w.t.Context(), string(third.SessionID))
		wantFault(t, "kill again", err, fault.Unavailable, "peer_pending")
		w.setFate(nil)
		if _, err = w.Kill(w.t.Context(), string(third.SessionID)); err != nil || len(w.peers()) != 0 {
			t.Errorf("got %v, %d peers", err, len(w.peers()))
		}
	})
}

func TestRestartInEveryStateMakesLanesAgree(t *testing.T) {
	inBubble(t, func(w *world) {
		online, offline, closing := newKey(), newKey(), newKey()
		w.addUser("carl", "c1", "c2")
		w.openAs("alice", "a2", offline)
		time.Sleep(2 * time.Minute) // silent
		w.openAs("alice", "a1", online)
		w.openAs("bob", "b1", closing)
		w.setFate(only(refused, "remove", "sync"))
		if _, err := w.CloseDevice(w.t.Context(), "b1", api.ByUser, false); err == nil {
			t.Fatal("closed")
		}
		w.setFate(only(lost, "put"))
		if _, err := w.Open(w.t.Context(), request("carl", "c1", newKey())); err == nil {
			t.Fatal("opened")
		}
		w.setFate(nil)
		w.restart()
		synctest.Wait()
		w.agrees()
		if got := w.get("a1"); got.State != api.Online {
			t.Errorf("a1: %+v", got)
		}
		if got := w.get("a2"); got.State != api.Offline || got.Reason != api.Silent {
			t.Errorf("a2: %+v", got)
		}
		if len(w.listed()) != 2 {
			t.Errorf("open: %+v", w.listed())
		}
		w.stop() // in good order
		w.start()
		synctest.Wait()
		w.agrees()
	})
}

// A crash between the record on disk and the call to lanes.
func TestCrashInTheMiddleOfOpening(t *testing.T) {
	for _, o := range []outcome{hung, doneHung} {
		inBubble(t, func(w *world) {
			old, fresh := newKey(), newKey()
			w.openAs("alice", "a1", old)
			for _, op := range []string{"put", "remove"} {
				w.setFate(only(o, op))
				ctx, cancel := context.WithCancel(context.Background())
				var opening sync.WaitGroup
				opening.Go(func() { _, _ = w.Open(ctx, request("alice", "a1", fresh)) })
				synctest.Wait()
				w.crash()
				cancel()
				opening.Wait()
				w.setFate(nil)
				w.start()
				synctest.Wait()
				w.agrees()
				fresh = newKey()
			}
		})
	}
}

func TestLanesRestartIsSynced(t *testing.T) {
	inBubble(t, func(w *world) {
		w.openAs("alice", "a1", newKey())
		w.openAs("bob", "b1", newKey())
		for range 3 {
			w.wipeKernel()
			time.Sleep(time.Second)
			synctest.Wait()
			w.agrees()
		}
		w.restartLanes()
		w.openAs("alice", "a2", newKey()) // before anybody has noticed
		time.Sleep(time.Second)
		w.agrees()
		w.setFate(only(refused, "epoch"))
		time.Sleep(2 * time.Second)
		if w.Ready() == nil {
			t.Error("ready although lanes does not answer")
		}
		w.setFate(nil) // the same epoch as before
		time.Sleep(time.Second)
		if err := w.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// What changes while a Sync is on its way must not be undone by its older list.
func TestSyncUndoesNothingThatWasAcknowledged(t *testing.T) {
	inBubble(t, func(w *world) {
		first := newKey()
		w.openAs("alice", "a1", first)
		w.setFate(only(slow, "sync"))
		for range 10 {
			w.restartLanes()
			w.settleNearly()
			second := newKey()
			w.openAs("bob", "b1", second)
			w.agreesSoon(first, second)
			w.restartLanes()
			w.settleNearly()
			if _, err := w.CloseDevice(w.t.Context(), "b1", api.ByUser, false); err != nil {
				t.Fatal(err)
			}
			w.agreesSoon(first)
		}
	})
}

// settleNearly waits until the reconciler has noticed and a slow Sync is on its
// way.
func (w *world) settleNearly() {
	n := w.count("sync")
	for w.count("sync") == n {
		time.Sleep(5 * time.Millisecond)
	}
}

// agreesSoon looks at the peers before the reconciler looks at them again.
func (w *world) agreesSoon(keys ...string) {
	w.t.Helper()
	for range 10 {
		got := w.peers()
		for _, k := range keys {
			if _, ok := got[k]; !ok {
				w.t.Fatal("a peer is missing")
			}
		}
		if len(got) != len(keys) {
			w.t.Fatal("a peer is there that is not wanted")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A peer that waits for its removal, whose key is being opened again, is made by
// the Sync that comes first. When that opening is given up, it waits for its
// removal again, and the Sync must not take this for what it has removed.
func TestSyncForgetsNoPeerThatItMakes(t *testing.T) {
	inBubble(t, func(w *world) {
		w.setFate(only(refused, "remove"))
		key := newKey()
		w.openAs("alice", "a1", key)
		if _, err := w.CloseDevice(context.Background(), "a1", api.ByUser, false); fault.ReasonOf(err) != "peer_pending" {
			t.Fatalf("closed without lanes: %v", err)
		}
		w.setFate(func(op string) outcome {
			return map[string]outcome{"remove": refused, "put": hung, "sync": late}[op]
		})
		w.restartLanes()
		var wg sync.WaitGroup
		open := func(user id.User, device id.Device, key string, within time.Duration) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), within)
				defer cancel()
				if _, err := w.Open(ctx, request(user, device, key)); err == nil {
					t.Errorf("%s is open", device)
				}
			})
		}
		open("bob", "b1", newKey(), 3*time.Second) // holds up the Sync
		time.Sleep(2 * time.Second)
		open("alice", "a1", key, 1050*time.Millisecond) // waits behind it, until it is on its way
		wg.Wait()
		if w.count("sync") != 2 {
			t.Fatalf("%d Syncs: not the order that is wanted", w.count("sync"))
		}
		time.Sleep(200 * time.Millisecond)
		w.setFate(nil)
		if _, err := w.CloseDevice(context.Background(), "a1", api.ByUser, false); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.peers()[key]; ok {
			t.Error("closing was acknowledged, and the peer is there")
		}
	})
}

func TestOpenAgainWhileLanesCannotBeSynced(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		w.setFate(only(refused, "sync"))
		w.wipeKernel()
		time.Sleep(time.Second)
		w.openAs("alice", "a1", key)
		if _, ok := w.peers()[key]; !ok {
			t.Error("acknowledged without a peer")
		}
		w.setFate(nil)
		w.settle()
		w.agrees()
	})
}

func TestAPeerThatComesOrGoesBehindOurBackIsNoticed(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		w.settle()
		stray := w.peers()[key]
		stray.Device, stray.PublicKey = "b1", newKey()
		w.siblings.mu.Lock()
		delete(w.kernel, key)
		w.add(stray) // as if an old process's call came late
		w.siblings.mu.Unlock()
		time.Sleep(10 * time.Second)
		w.agrees()
		n := w.count("sync")
		w.settle()
		if w.count("sync") != n {
			t.Error("synced although nothing differs")
		}
	})
}

func TestSessionsWithoutTheirLeaseAreClosed(t *testing.T) {
	inBubble(t, func(w *world) {
		w.openAs("alice", "a1", newKey())
		w.openAs("alice", "a2", newKey())
		w.openAs("bob", "b1", newKey())
		w.crash()
		w.siblings.mu.Lock()
		delete(w.leases, "a1")
		l := w.leases["b1"]
		l.VPN = place(8, 999)
		w.leases["b1"] = l
		w.siblings.mu.Unlock()
		w.setFate(only(refused, "leases"))
		w.start()
		w.settle()
		if n := len(w.listed()); n != 3 {
			t.Errorf("%d open while ipam is down", n)
		}
		w.setFate(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.listed(); len(got) != 1 || got[0].Device != "a2" {
			t.Errorf("open: %+v", got)
		}
		w.agrees()
	})
}

// TestSuspendedUserNeverHasASession runs openings and the closing of all of a
// user's sessions against each other: when CloseUser has returned, there is no
// session, and none comes later.
func TestSuspendedUserNeverHasASession(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(7, 7))
	var rndMu sync.Mutex
	w.setFate(func(string) outcome {
		rndMu.Lock()
		defer rndMu.Unlock()
		for range rnd.IntN(4) {
			runtime.Gosched()
		}
		return answered
	})
	for round := range 150 {
		u := id.User(fmt.Sprint("u", round))
		devices := make([]id.Device, 4)
		for i := range devices {
			devices[i] = id.Device(fmt.Sprint("d", round, ".", i))
		}
		w.addUser(u, devices...)
		var all sync.WaitGroup
		for _, d := range devices {
			all.Go(func() {
				for range 3 {
					_, _ = w.Open(t.Context(), request(u, d, newKey()))
				}
			})
		}
		all.Go(func() {
			for range round % 7 {
				runtime.Gosched()
			}
			w.setStatus(u, users.Suspended) // committed first
			if _, err := w.CloseUser(t.Context(), u, api.UserSuspended, false); err != nil {
				t.Error(err)
			}
			check := func(when string) {
				for _, s := range w.listed() {
					if s.User == u {
						t.Errorf("round %d: %s has a session %s", round, s.Device, when)
					}
				}
				for _, p := range w.peers() {
					if slices.Contains(devices, p.Device) {
						t.Errorf("round %d: %s has a peer %s", round, p.Device, when)
					}
				}
			}
			check("at once")
			all.Go(func() {
				for range 20 {
					runtime.Gosched()
				}
				check("later")
			})
		})
		all.Wait()
		for _, d := range devices {
			if r := w.Beat(t.Context(), api.BeatItem{User: u, Device: d}); r.Refused == "" {
				t.Errorf("round %d: a heartbeat is taken", round)
			}
		}
	}
}
