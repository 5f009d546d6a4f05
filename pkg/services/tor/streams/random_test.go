package streams_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vpnd/pkg/services/tor/streams"
)

// TestRandomHistories lets devices, users, exits, tor and the service itself do
// what they like, and holds every attachment against the rules.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			within(t, func(w *world) { history(w, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func history(w *world, rnd *rand.Rand) {
	t := w.t
	devices := []netip.Addr{alice, bob, netip.MustParseAddr("fd00::2")}
	exits := []string{fp("A"), fp("B"), fp("C")}
	// What each device has been allowed since the stream began: a change
	// counts for streams from then on, and for those before it that are not placed.
	strict := map[string][]streams.Choice{} // of the stream's device: all that held in its life
	device := map[string]netip.Addr{}
	none := map[string]bool{} // no strict choice held at some time
	note := func(id string, d netip.Addr) {
		c, ok := w.choices[d]
		if !ok || !c.Strict {
			none[id] = true
		}
		strict[id] = append(strict[id], c)
	}
	dice := rand.New(rand.NewPCG(rnd.Uint64(), 2)) // used under the lock of tor
	w.tor.build = func(string) (time.Duration, bool) {
		d := time.Duration(dice.IntN(3000)+1) * time.Millisecond
		if dice.IntN(20) == 0 {
			d = time.Hour
		}
		return d, dice.IntN(5) > 0
	}
	w.tor.connect = func(string, string) bool { return dice.IntN(6) > 0 }
	w.set(func() {
		wait := time.Duration(rnd.IntN(300)) * time.Millisecond
		fails := rnd.IntN(4) == 0
		n := 0
		w.lookup = func() error {
			time.Sleep(wait)
			w.mu.Lock()
			defer w.mu.Unlock()
			if n++; fails && n%9 == 0 {
				return errors.New("nobody answers")
			}
			return nil
		}
	})
	var live []string
	for range 150 {
		d := devices[rnd.IntN(len(devices))]
		switch rnd.IntN(14) {
		case 0:
			w.choose(d, rnd.IntN(2) == 0, exits[rnd.IntN(3)], exits[rnd.IntN(3)])
			for _, id := range live {
				if device[id] == d {
					note(id, d)
				}
			}
		case 1:
			w.set(func() { delete(w.choices, d) })
			w.a.ChoicesChanged()
			for _, id := range live {
				if device[id] == d {
					note(id, d)
				}
			}
		case 2:
			w.set(func() { w.exits = slices.Clone(exits); w.exits = slices.Delete(w.exits, rnd.IntN(3), 3) })
		case 3:
			w.set(func() { w.perDest = !w.perDest })
		case 4:
			if _, err := w.a.NewIdentity(context.Background(), []netip.Addr{d}, rnd.IntN(5) == 0); err != nil {
				t.Error(err)
			}
		case 5:
			w.tor.mu.Lock()
			w.tor.deaf = !w.tor.deaf
			w.tor.mu.Unlock()
		case 6:
			if rnd.IntN(3) == 0 {
				w.stop()
				w.start()
			}
		case 7:
			w.tor.kill(fmt.Sprint(10 + rnd.IntN(200)))
		case 8:
			if len(live) > 0 {
				w.tor.drop(live[rnd.IntN(len(live))])
			}
		case 9, 10:
			w.settle(time.Duration(rnd.IntN(1500)) * time.Millisecond)
		default:
			id := w.tor.open(d.String()+":1", fmt.Sprintf("192.0.2.%d:80", rnd.IntN(4)))
			device[id] = d
			note(id, d)
			live = append(live, id)
		}
	}
	w.tor.mu.Lock()
	w.tor.deaf = false
	w.tor.mu.Unlock()
	w.tor.drop(w.tor.open("127.0.0.1:1", "192.0.2.1:80")) // tells what was lost
	w.settle(3 * time.Minute)

	w.tor.mu.Lock()
	owner := map[string]string{} // of our circuits: the first stream's device
	for _, a := range w.tor.attached {
		d, ok := device[a.stream]
		if !ok {
			continue
		}
		switch {
		case a.maker != "us":
			if !none[a.stream] {
				t.Errorf("stream %s of %s left to tor, in spite of %+v", a.stream, d, strict[a.stream])
			}
		case owner[a.circuit] == "":
			owner[a.circuit] = d.String()
			fallthrough
		default:
			if owner[a.circuit] != d.String() {
				t.Errorf("stream %s of %s on a circuit of %s", a.stream, d, owner[a.circuit])
			}
			if !slices.ContainsFunc(strict[a.stream], func(c streams.Choice) bool { return slices.Contains(c.Exits.Fingerprints, a.exit) }) {
				t.Errorf("stream %s leaves at %s, never chosen", a.stream, a.exit[:1])
			}
		}
	}
	for id, s := range w.tor.streams {
		if s.state != open && s.state != connectWait {
			t.Errorf("stream %s of %s hangs: state %d", id, s.source, s.state)
		}
	}
	w.tor.mu.Unlock()
	for _, id := range live {
		w.tor.drop(id)
	}
	w.settle(2 * time.Hour)
	w.tor.mu.Lock()
	for id, c := range w.tor.circuits {
		if c.maker == "us" {
			t.Errorf("circuit %s of ours was left", id)
		}
		w.tor.endCircuit(id, "CLOSED")
	}
	w.tor.mu.Unlock()
	w.settle(time.Minute)
	if s, c, bad, j := w.a.Sizes(); s+c+bad+j != 0 {
		t.Errorf("remembered for ever: %d streams, %d circuits, %d exits, %d in the journal", s, c, bad, j)
	}
}

// BenchmarkNewStream is what a new stream costs from its event to the command,
// beside tor's own time.
func BenchmarkNewStream(b *testing.B) {
	for _, circuits := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("circuits=%d", circuits), func(b *testing.B) {
			w := newBench(b, circuits)
			at := make(chan time.Time, 1)
			w.tor.mu.Lock()
			w.tor.attachAt = at
			w.tor.mu.Unlock()
			b.ResetTimer()
			for b.Loop() {
				id := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
				<-at
				w.tor.drop(id)
			}
		})
	}
}

// newBench has one built circuit for each of so many devices; without any,
// nobody has a choice.
func newBench(b *testing.B, circuits int) *world {
	w := &world{t: b, tor: newFake(), path: filepath.Join(b.TempDir(), "journal"), life: "one",
		choices: map[netip.Addr]streams.Choice{}, exits: []string{fp("A")}}
	w.tor.build = func(string) (time.Duration, bool) { return 0, true }
	w.start()
	b.Cleanup(func() { w.stop() })
	w.tor.attachAt = make(chan time.Time, circuits+1)
	d := alice
	for range circuits {
		w.choose(d, true, fp("A"))
		w.tor.open(d.String()+":1", "192.0.2.1:80")
		<-w.tor.attachAt
		d = d.Next()
	}
	return w
}
