package streams_test

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func TestNewIdentityClosesOneDevicesAndNothingElse(t *testing.T) {
	within(t, func(w *world) {
		mine, theirs := w.tor.open("10.9.0.2:1", "192.0.2.1:80"), w.tor.open("10.9.0.25:1", "192.0.2.1:80")
		w.settle(time.Second) // both on circuits of tor, of two legs each
		w.choose(alice, true, fp("A"))
		w.choose(bob, true, fp("A"))
		mine2, theirs2 := w.tor.open("10.9.0.2:2", "192.0.2.1:80"), w.tor.open("10.9.0.25:2", "192.0.2.1:80")
		w.settle(time.Second)
		w.set(func() { w.lookup = func() error { time.Sleep(time.Second); return nil } })
		w.choose(alice, true, fp("B"))
		asking, other := w.tor.open("10.9.0.2:3", "192.0.2.1:80"), w.tor.open("10.9.0.25:3", "192.0.2.1:80")
		w.settle(time.Second / 2)

		ended, cancel := context.WithCancel(w.t.Context())
		cancel() // whoever asked has gone; half of it would be worth nothing
		got, err := w.a.NewIdentity(ended, []netip.Addr{alice}, false)
		if err != nil || got.Streams != 3 || got.Circuits != 3 {
			t.Errorf("%+v, %v", got, err)
		}
		w.settle(5 * time.Second)
		for _, id := range []string{mine, mine2, asking} {
			if w.tor.streams[id] != nil {
				t.Errorf("stream %s lives", id)
			}
		}
		for _, id := range []string{theirs, theirs2, other} {
			if w.tor.streams[id] == nil {
				t.Errorf("stream %s is gone", id)
			}
		}
		if got := w.a.Uses(); len(got) != 3 { // bob's: two legs of tor's, one of ours
			t.Errorf("%+v", got)
		}
		if got, err := w.a.NewIdentity(w.t.Context(), nil, true); err != nil || got.Circuits != 3 || got.Streams != 3 {
			t.Errorf("all: %+v, %v", got, err)
		}
	})
}

// tor may put a stream on a circuit while it is being closed: the circuit
// carries the old identity and must go before the next stream gets it.
func TestACircuitThatComesLateGoesToo(t *testing.T) {
	within(t, func(w *world) {
		id := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		w.settle(10 * time.Millisecond) // given to tor, not on a circuit yet
		w.tor.closing = func(s *fakeStream) {
			w.tor.closing = nil
			c := &fakeCircuit{id: w.tor.id(), exit: fp("T"), maker: "10.9.0.2", path: []string{fp("G"), fp("M"), fp("T")}, built: true}
			w.tor.circuits[c.id] = c
			w.tor.put(s, c)
		}
		if _, err := w.a.NewIdentity(w.t.Context(), []netip.Addr{alice}, false); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Second)
		if on := w.tor.on(id); len(on) != 1 || w.tor.circuits[on[0].circuit] != nil {
			t.Errorf("%+v lives on", on)
		}
	})
}

func TestNewIdentityTellsWhenTorDidNotObey(t *testing.T) {
	within(t, func(w *world) {
		w.exit(alice, "192.0.2.1:80")
		w.tor.broken = true
		if _, err := w.a.NewIdentity(w.t.Context(), []netip.Addr{alice}, false); err == nil {
			t.Error("no error, and the old circuits live")
		}
	})
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	within(t, func(w *world) {
		w.choose(bob, true, fp("B"))
		gone := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		stays := w.tor.open("10.9.0.2:2", "192.0.2.1:80")
		waits := w.tor.open("10.9.0.25:2", "192.0.2.1:80")
		w.settle(50 * time.Millisecond) // bob's circuit is being built
		w.tor.mu.Lock()
		w.tor.deaf = true
		w.tor.mu.Unlock()
		w.tor.drop(gone)
		hidden := w.tor.open("10.9.0.2:3", "192.0.2.1:80")
		w.settle(2 * time.Second)
		w.tor.mu.Lock()
		w.tor.deaf = false
		w.tor.mu.Unlock()
		next := w.tor.open("10.9.0.2:4", "192.0.2.1:80")
		w.settle(5 * time.Second)
		w.want(w.where(stays), "T")
		w.want(w.where(waits), "B")
		w.want(w.where(hidden), "-")
		w.want(w.where(next), "T")
		if n, _, _, _ := w.a.Sizes(); n != 3 {
			t.Errorf("%d streams", n)
		}
	})
}
