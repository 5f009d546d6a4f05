package sessions_test

import (
	"testing"
	"testing/synctest"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
)

func (w *world) wantBytes(when, ref string, rx, tx int64) {
	w.t.Helper()
	if s := w.get(ref); s.RxBytes != rx || s.TxBytes != tx || s.VPNRxBytes+s.TorRxBytes != rx || s.VPNTxBytes+s.TorTxBytes != tx {
		w.t.Errorf("%s: %d and %d bytes (vpn %d %d, tor %d %d), want %d and %d", when, s.RxBytes, s.TxBytes,
			s.VPNRxBytes, s.VPNTxBytes, s.TorRxBytes, s.TorTxBytes, rx, tx)
	}
}

func TestCountersAreTotals(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		time.Sleep(5 * time.Second)
		w.traffic(key, 100, 1000)
		time.Sleep(3 * time.Second)
		w.wantBytes("first reading", "a1", 100, 1000)
		w.traffic(key, 11, 22)
		w.siblings.mu.Lock()
		w.kernel[key].tor = lanes.Counters{RxBytes: 5, TxBytes: 6}
		w.siblings.mu.Unlock()
		time.Sleep(3 * time.Second)
		w.wantBytes("both lanes", "a1", 116, 1028)

		// The interface is made anew and counts from zero.
		w.wipeKernel()
		time.Sleep(time.Second)
		w.traffic(key, 3, 4)
		time.Sleep(3 * time.Second)
		w.wantBytes("after a reset", "a1", 119, 1032)

		// Ours restarts, in good order and not.
		time.Sleep(10 * time.Second)
		w.stop()
		w.traffic(key, 1, 1)
		w.start()
		time.Sleep(3 * time.Second)
		w.wantBytes("after a restart", "a1", 120, 1033)
		w.traffic(key, 10, 10)
		time.Sleep(3 * time.Second) // read, not written down
		w.restart()
		time.Sleep(3 * time.Second)
		w.wantBytes("after a crash", "a1", 130, 1043)

		time.Sleep(20 * time.Second)
		if u := w.total("alice"); u.RxBytes != 130 || u.TxBytes != 1043 || u.Sessions != 0 {
			t.Errorf("totals %+v", u)
		}
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false); err != nil {
			t.Fatal(err)
		}
		w.settle()
		if u := w.total("alice"); u.RxBytes != 130 || u.TxBytes != 1043 || u.Sessions != 1 {
			t.Errorf("totals %+v", u)
		}
	})
}

func TestReportsCountOnceWhateverIsLost(t *testing.T) {
	inBubble(t, func(w *world) {
		alices, bobs := newKey(), newKey()
		w.openAs("alice", "a1", alices)
		w.openAs("bob", "b1", bobs)
		time.Sleep(5 * time.Second)
		var sent int64
		for i, o := range []outcome{lost, doneHung, refused, hung, lost, answered} {
			w.setFate(only(o, "usage"))
			w.traffic(alices, 1000, 1)
			w.traffic(bobs, 7, 0)
			sent += 1000
			time.Sleep(33 * time.Second)
			if i%2 == 1 {
				w.restart()
				time.Sleep(time.Second)
			}
		}
		w.setFate(nil)
		w.settle()
		if a, b := w.total("alice"), w.total("bob"); a.RxBytes != sent || a.TxBytes != 6 || b.RxBytes != 42 {
			t.Errorf("alice %+v, bob %+v, want %d", a, b, sent)
		}
		w.agrees()
	})
}

// Numbers that lanes gave before it knew the new session's peer are those of
// the old one.
func TestOldBytesAreNotTheNewSessions(t *testing.T) {
	inBubble(t, func(w *world) {
		old := newKey()
		w.openAs("alice", "a1", old)
		time.Sleep(10 * time.Second)
		w.traffic(old, 5000, 5000)
		w.setFate(func(op string) outcome { // readings are on their way during changes
			switch op {
			case "stats":
				return late
			case "put", "remove":
				return slow
			}
			return answered
		})
		want := map[id.Session]int64{}
		for i := range int64(120) {
			key := newKey()
			got := w.openAs("alice", "a1", key)
			want[got.SessionID] = (1000 - i) * 1000 // less than the one before
			w.traffic(key, want[got.SessionID], 0)
			time.Sleep(177 * time.Millisecond)
		}
		if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false); err != nil {
			t.Fatal(err)
		}
		for sid, rx := range want {
			w.wantBytes("closed", string(sid), rx, 0)
		}
	})
}

func TestSameKeyAgainCountsFromZero(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		for range 3 {
			w.openAs("alice", "a1", key)
			time.Sleep(5 * time.Second)
			w.traffic(key, 10, 10)
			if _, err := w.CloseDevice(w.t.Context(), "a1", api.ByUser, false); err != nil {
				t.Fatal(err)
			}
		}
		w.settle()
		if u := w.total("alice"); u.RxBytes != 30 || u.Sessions != 3 {
			t.Errorf("totals %+v", u)
		}
	})
}

func TestEndOfAProcessWritesEverythingDown(t *testing.T) {
	inBubble(t, func(w *world) {
		key := newKey()
		w.openAs("alice", "a1", key)
		time.Sleep(30 * time.Second)
		w.traffic(key, 10, 10)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.stop()
		w.wipeKernel() // what was not written down is lost now
		w.start()
		time.Sleep(5 * time.Second)
		w.wantBytes("after", "a1", 10, 10)
	})
}
