package streams_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/pkg/services/tor/streams"
)

// A killed service's successor knows the sources, decides what waits, and
// takes no circuit whose group it cannot know.
func TestRestart(t *testing.T) {
	within(t, func(w *world) {
		w.choose(alice, true, fp("A"))
		open := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		torOpen := w.tor.open("10.9.0.25:1", "192.0.2.1:80")
		w.settle(time.Second)
		w.set(func() { w.lookup = func() error { time.Sleep(time.Hour); return nil } })
		w.choose(alice, true, fp("B"))
		pending := w.tor.open("10.9.0.2:2", "192.0.2.2:80")
		w.settle(time.Millisecond)
		w.set(func() { w.lookup = nil })
		go w.stop() // its question is never answered, as for one that is killed
		synctest.Wait()
		unknown := w.tor.open("10.9.0.25:2", "192.0.2.2:80") // nobody hears of it
		w.tor.streams["9"] = &fakeStream{id: "9", state: circuitWait, target: "192.0.2.9." + "$" + fp("F") + ".exit:443"}

		w.start()
		if w.a.Source(open) != alice || w.a.Source(torOpen) != bob || w.a.Source(pending) != alice {
			t.Error("sources are forgotten")
		}
		w.settle(5 * time.Second)
		w.want(w.where(pending), "B")
		w.want(w.where(unknown), "-") // a strict choice may be its user's
		if w.tor.wasClosed("9") || w.tor.wasClosed(open) {
			t.Error("closed what was not ours to close")
		}
		old := w.tor.on(open)[0].circuit
		w.choose(alice, true, fp("A"))
		next := w.tor.open("10.9.0.2:3", "192.0.2.1:80")
		w.settle(time.Second)
		if w.tor.on(next)[0].circuit == old {
			t.Error("a circuit of before was used")
		}
		got, err := w.a.NewIdentity(w.t.Context(), []netip.Addr{alice}, false)
		w.settle(time.Second)
		if err != nil || got.Streams != 3 || w.tor.circuits[old] != nil || w.tor.streams[torOpen] == nil {
			t.Errorf("%+v, %v", got, err)
		}
		w.settle(2 * time.Hour)
	})
}

func TestUnknownStreamsWithoutChoicesGoToTor(t *testing.T) {
	within(t, func(w *world) {
		w.stop()
		id := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		w.start()
		w.settle(5 * time.Second)
		w.want(w.where(id), "T")
		// Its circuit is nobody's, so it goes with anybody's identity.
		if got, err := w.a.NewIdentity(w.t.Context(), []netip.Addr{bob}, false); err != nil || got.Streams != 1 || got.Circuits != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestTheJournalOfAnotherTorIsIgnored(t *testing.T) {
	within(t, func(w *world) {
		id := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		w.settle(time.Second)
		w.stop()
		w.life = "two"
		w.start()
		if w.a.Source(id).IsValid() {
			t.Error("a source of another life")
		}
	})
}

func TestJournalLines(t *testing.T) {
	for text, want := range map[string][3]int{
		"":                                     {},
		"life one":                             {},
		"life two\ns 1 10.9.0.2\n":             {},
		"life one\ns 1 10.9.0.2\ns 2 10.9.0.2": {1, 0, 0}, // cut: it was 10.9.0.25
		"life one\ns 1 10.9.0.2\nx 1\nc 4 10.9.0.2\no 4\ns x y z\ns 3 no\n": {0, 1, 1},
	} {
		s, c, o := streams.ParseJournal([]byte(text), "one")
		if got := [3]int{s, c, o}; got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

// Nothing that goes wrong with the file stops streams, and it does not grow for ever.
func TestJournalStaysSmallAndOptional(t *testing.T) {
	within(t, func(w *world) {
		for i := range 60000 {
			w.tor.drop(w.tor.open("10.9.0.2:1", "192.0.2.1:80"))
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		last := w.tor.open("10.9.0.25:1", "192.0.2.1:80")
		w.settle(time.Second)
		if st, err := os.Stat(w.path); err != nil || st.Size() > 1<<20 {
			t.Error(st.Size(), err)
		}
		w.stop()
		w.start()
		if w.a.Source(last) != bob {
			t.Error("forgotten by a new file")
		}
		w.stop()
		w.path = filepath.Join(w.path, "no", "folder")
		w.start()
		w.want(w.exit(alice, "192.0.2.1:80"), "T")
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("life one\ns 1 10.9.0.2\nc 2 fd00::2\no 2\nx 1\n"))
	f.Add([]byte("life one\ns 1 10.9.0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, c, o := streams.ParseJournal(data, "one")
		if n := strings.Count(string(data), "\n"); s+c+o > n {
			t.Errorf("%d things from %d lines", s+c+o, n)
		}
		cut := streams.ParseJournal
		if s2, c2, o2 := cut(append(data, "\ns 9"...), "one"); s2 < s-1 || c2 < c || o2 < o {
			t.Error("a cut line takes others with it")
		}
	})
}
