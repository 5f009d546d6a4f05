package sessions_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
)

func (w *world) beat(item api.BeatItem) api.BeatResult {
	return w.Beat(w.t.Context(), item)
}

func TestOnlineWhileHeartbeatsOrHandshakesAreFresh(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		item := api.BeatItem{User: "alice", Device: "a1", Remote: "198.51.100.5"}
		for range 5 {
			time.Sleep(80 * time.Second)
			if got := w.beat(item); got != (api.BeatResult{State: api.Online}) {
				t.Fatalf("got %+v", got)
			}
		}
		if got := w.get("a1"); got.State != api.Online || got.Remote != "198.51.100.5" {
			t.Errorf("got %+v", got)
		}
		w.events()
		time.Sleep(89 * time.Second)
		if got := w.get("a1"); got.State != api.Online {
			t.Errorf("offline too early: %+v", got)
		}
		time.Sleep(3 * time.Second)
		if got := w.get("a1"); got.State != api.Offline || got.Reason != api.Silent {
			t.Errorf("not offline: %+v", got)
		}
		w.agrees() // the peer stays
		if got := w.beat(item); got != (api.BeatResult{State: api.Online, Recovered: true}) {
			t.Errorf("got %+v", got)
		}
		time.Sleep(2 * time.Minute)
		w.traffic(key, 1, 1) // a handshake
		time.Sleep(3 * time.Second)
		if got := w.get("a1"); got.State != api.Online || got.Reason != api.Recovered || got.Endpoint == "" || got.Lane != "vpn" {
			t.Errorf("not recovered: %+v", got)
		}
		time.Sleep(175 * time.Second) // no heartbeat, but the keys live
		if got := w.get("a1"); got.State != api.Online {
			t.Errorf("got %+v", got)
		}
		time.Sleep(10 * time.Second)
		if got := w.get("a1"); got.State != api.Offline {
			t.Errorf("got %+v", got)
		}
		want := []string{"session.offline silent", "session.recovered recovered", "session.offline silent",
			"session.recovered recovered", "session.offline silent"}
		if d := cmp.Diff(want, w.events()); d != "" {
			t.Error(d)
		}
		w.agrees()
	})
}

func TestHeartbeatWithoutASessionSaysWhy(t *testing.T) {
	inBubble(t, func(w *world) {
		item := api.BeatItem{User: "alice", Device: "a1"}
		refused := func(why api.Reason) api.BeatResult { return api.BeatResult{Refused: "session_closed", Why: why} }
		if got := w.beat(item); got != refused("") {
			t.Errorf("never opened: %+v", got)
		}
		for _, why := range []api.Reason{api.ByAdmin, api.LoggedOut, api.ByUser, api.UserSuspended} {
			time.Sleep(time.Second)
			w.openAs("alice", "a1", newKey())
			if why == api.UserSuspended {
				w.setStatus("alice", users.Suspended)
			}
			if _, err := w.CloseUser(w.t.Context(), "alice", why, false); err != nil {
				t.Fatal(err)
			}
			if got := w.beat(item); got != refused(why) {
				t.Errorf("got %+v, want %s", got, why)
			}
			w.restart()
			synctest.Wait()
			if got := w.beat(item); got != refused(why) {
				t.Errorf("after a restart: got %+v, want %s", got, why)
			}
		}
		w.setStatus("alice", users.Active)
		if got := w.beat(item); got != refused("") {
			t.Errorf("active again: %+v", got)
		}
		w.openAs("bob", "b1", newKey())
		if got := w.beat(api.BeatItem{User: "alice", Device: "b1"}); got != refused("") {
			t.Errorf("somebody else's device: %+v", got)
		}
	})
}

func TestHardTTLClosesEvenABusySession(t *testing.T) {
	inBubble(t, func(w *world) {
		w.cfg.HardTTL = time.Hour
		w.stop()
		w.start()
		w.openAs("alice", "a1", newKey())
		item := api.BeatItem{User: "alice", Device: "a1"}
		for range 59 {
			time.Sleep(time.Minute)
			if got := w.beat(item); got.Refused != "" {
				t.Fatalf("got %+v", got)
			}
		}
		time.Sleep(59 * time.Second)
		w.agrees()
		time.Sleep(3 * time.Second)
		if got := w.beat(item); got.Refused != "session_closed" || got.Why != api.Expired {
			t.Errorf("got %+v", got)
		}
		if n := len(w.peers()); n != 0 {
			t.Errorf("%d peers", n)
		}
		w.agrees()
	})
}

func TestRestartIsNoSilence(t *testing.T) {
	inBubble(t, func(w *world) {
		w.openAs("alice", "a1", newKey())
		w.crash()
		time.Sleep(time.Hour) // sessions was down
		w.start()
		time.Sleep(80 * time.Second)
		if got := w.get("a1"); got.State != api.Online {
			t.Errorf("got %+v", got)
		}
		time.Sleep(20 * time.Second)
		if got := w.get("a1"); got.State != api.Offline {
			t.Errorf("got %+v", got)
		}
	})
}
