package streams_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWithoutAChoiceTorChooses(t *testing.T) {
	within(t, func(w *world) {
		for _, target := range []string{"192.0.2.1:80", "[2001:db8::1]:443", "example.org:0"} {
			w.want(w.exit(alice, target), "T")
		}
		own := w.tor.open("127.0.0.1:9", "192.0.2.1:80") // no device's: a probe
		w.settle(time.Second)
		w.want(w.where(own), "T")
		if w.asked != 0 {
			t.Errorf("asked for the owner %d times", w.asked)
		}
	})
}

func TestAChoiceHasCircuitsOfItsOwn(t *testing.T) {
	within(t, func(w *world) {
		w.choose(alice, true, fp("A"))
		w.choose(bob, true, fp("A"))
		x := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		y := w.tor.open("10.9.0.2:2", "192.0.2.2:80") // waits for the same circuit
		z := w.tor.open("10.9.0.25:1", "192.0.2.1:80")
		w.settle(time.Second)
		again := w.tor.open("10.9.0.2:3", "192.0.2.3:80")
		w.settle(time.Second)
		on := func(id string) string { return w.tor.on(id)[0].circuit }
		if on(x) != on(y) || on(x) != on(again) || on(x) == on(z) || w.tor.count("extend A") != 2 {
			t.Errorf("circuits %s %s %s, other device %s: %q", on(x), on(y), on(again), on(z), w.tor.calls)
		}
		if u := w.a.Uses()[on(x)]; !u.Ours || u.Streams != 3 || len(u.Devices) != 1 || u.Devices[0] != alice {
			t.Errorf("%+v", u)
		}
		if w.a.Source(z) != bob || w.a.LastExit([]netip.Addr{alice}) != fp("A") {
			t.Error(w.a.Source(z), w.a.LastExit([]netip.Addr{alice}))
		}
		w.set(func() { w.perDest = true })
		d1, d2 := w.tor.open("10.9.0.2:4", "192.0.2.4:80"), w.tor.open("10.9.0.2:5", "192.0.2.5:80")
		d3 := w.tor.open("10.9.0.2:6", "192.0.2.4:80")
		w.settle(time.Second)
		if on(d1) == on(d2) || on(d1) != on(d3) || on(d1) == on(x) {
			t.Errorf("per destination: %s %s %s", on(d1), on(d2), on(d3))
		}
	})
}

// tor writes an IPv6 source without brackets; such a device must not slip past its choice.
func TestAnIPv6DeviceHasAChoiceToo(t *testing.T) {
	within(t, func(w *world) {
		w.choose(netip.MustParseAddr("fd00::2"), true, fp("B"))
		w.want(w.exit(netip.MustParseAddr("fd00::2"), "192.0.2.1:80"), "B")
		odd := w.tor.open("what:1", "192.0.2.1:80") // no source that can be read
		w.settle(5 * time.Second)
		w.want(w.where(odd), "-")
	})
}

func TestOnionsAreLeftToTor(t *testing.T) {
	within(t, func(w *world) {
		w.choose(alice, true, fp("A"))
		for _, target := range []string{"x.onion:80", "X.ONION.:80", "x.onion:0"} {
			w.want(w.exit(alice, target), "T")
		}
	})
}

func TestWhatHappensWithoutTheExit(t *testing.T) {
	for _, c := range []struct {
		name   string
		strict bool
		exits  []string
		build  string // exits that cannot be built
		dead   string // exits that connect nothing
		want   string
	}{
		{"strict, no such exit", true, []string{fp("Z")}, "", "", "-"},
		{"prefer, no such exit", false, []string{fp("Z")}, "", "", "T"},
		{"another exit of the choice", true, []string{fp("A"), fp("B")}, "A", "", "B"},
		{"another exit after a detach", true, []string{fp("A"), fp("B")}, "", "A", "B"},
		{"strict, the only one stopped", true, []string{fp("A")}, "A", "", "-"},
		{"prefer, the only one stopped", false, []string{fp("A")}, "A", "", "T"},
		{"strict, the only one connects nothing", true, []string{fp("A")}, "", "A", "-"},
		{"prefer, the only one connects nothing", false, []string{fp("A")}, "", "A", "T"},
	} {
		t.Run(c.name, func(t *testing.T) {
			within(t, func(w *world) {
				w.tor.build = func(exit string) (time.Duration, bool) {
					return time.Second, !strings.Contains(c.build, exit[:1])
				}
				w.tor.connect = func(_, exit string) bool { return !strings.Contains(c.dead, exit[:1]) }
				w.choose(alice, c.strict, c.exits...)
				w.want(w.exit(alice, "192.0.2.1:80"), c.want)
			})
		})
	}
}

// tor refuses a path when it lacks a descriptor; the next path may do.
func TestARefusedCircuitIsTriedAgain(t *testing.T) {
	within(t, func(w *world) {
		w.choose(alice, true, fp("A"))
		w.tor.unwilling = 2
		w.want(w.exit(alice, "192.0.2.1:80"), "A")
		w.tor.unwilling = 100
		w.set(func() { w.perDest = true })
		w.want(w.exit(alice, "192.0.2.2:80"), "-")
		if n := w.tor.count("extend"); n != 3+4 {
			t.Errorf("asked %d times", n)
		}
	})
}

// A circuit that never comes about is given up; a target that is dead at every
// exit ends, and takes no exit away from others.
func TestNothingWaitsForEver(t *testing.T) {
	within(t, func(w *world) {
		w.tor.build = func(string) (time.Duration, bool) { return time.Hour, true }
		w.choose(alice, true, fp("A"))
		id := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		w.settle(40 * time.Second)
		w.want(w.where(id), "-")
		w.settle(2 * time.Minute)

		w.tor.build = func(string) (time.Duration, bool) { return time.Second, true }
		w.tor.connect = func(target, _ string) bool { return target != "192.0.2.66:80" }
		w.choose(alice, false, fp("A"), fp("B"), fp("C"))
		w.choose(bob, false, fp("A"))
		dead := w.tor.open("10.9.0.2:2", "192.0.2.66:80")
		w.settle(20 * time.Second)
		w.want(w.where(dead), "-")
		w.want(w.exit(bob, "192.0.2.1:80"), "A")
		if n := len(w.tor.on(dead)); n > 12 {
			t.Errorf("tried %d times", n)
		}
	})
}

func TestRefusedAndUnknownOwnersAreClosed(t *testing.T) {
	within(t, func(w *world) {
		w.set(func() { w.refused[alice] = true })
		w.want(w.exit(alice, "192.0.2.1:80"), "-")
		w.set(func() { w.lookup = func() error { return errors.New("nobody answers") } })
		w.want(w.exit(bob, "192.0.2.1:80"), "T") // not asked
		w.choose(alice, false, fp("A"))
		w.want(w.exit(bob, "192.0.2.1:80"), "-")
	})
}

// A client that hangs up while its circuit is built must cost nothing more.
func TestAStreamThatIsGoneCostsNoCircuit(t *testing.T) {
	within(t, func(w *world) {
		w.choose(alice, true, fp("A"))
		x, y := w.tor.open("10.9.0.2:1", "192.0.2.1:80"), w.tor.open("10.9.0.2:2", "192.0.2.1:80")
		w.settle(50 * time.Millisecond)
		w.tor.mu.Lock() // gone, while its event is on the way
		delete(w.tor.streams, x)
		w.tor.mu.Unlock()
		w.settle(100 * time.Millisecond)
		w.tor.mu.Lock()
		w.tor.say("STREAM %s CLOSED 0 192.0.2.1:80", x)
		w.tor.mu.Unlock()
		w.settle(5 * time.Second)
		w.want(w.where(y), "A")
		w.want(w.exit(alice, "192.0.2.1:80"), "A")
		if n := w.tor.count("extend"); n != 1 {
			t.Errorf("%d circuits", n)
		}
	})
}

func TestOneDeviceCannotHaveAnyNumberOfCircuitsBuilt(t *testing.T) {
	within(t, func(w *world) {
		w.tor.build = func(string) (time.Duration, bool) { return 3 * time.Second, true }
		w.set(func() { w.perDest = true })
		w.choose(alice, true, fp("A"))
		var ids []string
		for i := range 40 {
			ids = append(ids, w.tor.open("10.9.0.2:1", fmt.Sprintf("192.0.2.%d:80", i)))
		}
		w.settle(time.Second / 2)
		if n := w.tor.count("extend"); n != 16 {
			t.Errorf("%d at a time", n)
		}
		w.settle(20 * time.Second)
		for _, id := range ids {
			w.want(w.where(id), "A")
		}
	})
}

func TestAChoiceThatChangesMeanwhileHolds(t *testing.T) {
	within(t, func(w *world) {
		w.choose(alice, true, fp("A"))
		w.set(func() { w.lookup = func() error { time.Sleep(time.Second); return nil } })
		asking := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		w.settle(time.Second / 2)
		w.choose(alice, true, fp("B"))
		w.settle(5 * time.Second)
		w.want(w.where(asking), "B")

		w.tor.build = func(string) (time.Duration, bool) { return 2 * time.Second, true }
		w.choose(alice, true, fp("C"))
		building := w.tor.open("10.9.0.2:1", "192.0.2.1:80")
		w.settle(2 * time.Second) // asked, and the circuit is on its way
		w.choose(alice, true, fp("B"))
		w.settle(8 * time.Second)
		if on := w.tor.on(building); len(on) != 1 || on[0].exit != fp("B") {
			t.Errorf("%+v", on)
		}
	})
}
