//go:build linux

package e2e_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
)

var phone = lab.Client(2)

// exitOf gives the only exit of a country.
func (w *torWorld) exitOf(country string) tornet.Exit {
	for _, e := range w.network.Exits() {
		if e.Country == country {
			return e
		}
	}
	w.t.Fatalf("there is no exit in %s", country)
	return tornet.Exit{}
}

// comes fetches a page until one comes, as a person would, and gives the address
// that the target saw. A relay that could not reach another does not try again for
// a minute, and a circuit through it takes longer than one request.
func (w *torWorld) comes(machine string, target netip.Addr) (seen string) {
	w.t.Helper()
	eventually(w.t, 90*time.Second, func() (err error) {
		seen, err = w.seenBy(machine, target)
		return err
	})
	return seen
}

// leavesBy fetches pages and wants all of them to see one exit.
func (w *torWorld) leavesBy(machine, country string, times int) {
	w.t.Helper()
	e := w.exitOf(country)
	for i := range times {
		target, want := lab.TargetV4, e.V4
		if i%2 == 1 {
			target, want = lab.TargetV6, e.V6
		}
		if seen := w.comes(machine, target); seen != want.String() {
			w.t.Errorf("page %d of %s from %s saw %q, want the exit in %s, %s", i+1, target, machine, seen, country, want)
			return
		}
	}
}

// leavesNowhere wants no page to come.
func (w *torWorld) leavesNowhere(machine string, target netip.Addr) {
	w.t.Helper()
	if seen, err := w.seenBy(machine, target); err == nil {
		w.t.Errorf("%s left by %s, against a strict choice", machine, seen)
	}
}

func exitChoices(t *testing.T, w *torWorld) {
	w.createUser("bob")
	w.connect(phone, "bob", "phone")
	w.run(0, "", phone, "vpn", "up", "--lane", "tor")
	defer w.run(0, "", phone, "vpn", "down")

	w.ctl(0, "", "tor", "exit", "set", "de", "--user", "alice", "--strict")
	w.ctl(0, "", "tor", "exit", "set", "nl", "--user", "bob", "--prefer")
	w.leavesBy(laptop, "de", 20)
	w.leavesBy(phone, "nl", 20)

	w.killService("tor")
	w.eventuallyReady("tor")
	// A connection that was begun while nobody could say whose it is may be closed.
	_, _ = w.get(laptop, page(lab.TargetV4, "/ip"))
	_, _ = w.get(phone, page(lab.TargetV4, "/ip"))
	w.leavesBy(laptop, "de", 4)
	w.leavesBy(phone, "nl", 4)
	if out := w.run(0, "", laptop, "vpn", "status", "-o", "json"); !strings.Contains(out, `"de"`) {
		t.Errorf("alice is not told of her exit country:\n%s", out)
	}

	for _, c := range []string{"de", "nl"} {
		if err := w.network.StopExit(c); err != nil {
			t.Fatal(err)
		}
		if c == "de" {
			w.leavesNowhere(laptop, lab.TargetV4) // strict
			if err := w.network.StartExit(c); err != nil {
				t.Fatal(err)
			}
			continue
		}
		// What is on the circuit ends with it; what comes after leaves by another.
		// tor, which chooses then, may still pick the one that is gone: it is
		// half of this network's.
		for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
			eventually(t, 90*time.Second, func() error {
				seen, err := w.seenBy(phone, target)
				if e := w.exitOf("de"); err == nil && seen != e.V4.String() && seen != e.V6.String() {
					t.Errorf("bob left by %q", seen)
				}
				return err
			})
		}
		if err := w.network.StartExit(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, machine := range []string{laptop, phone} {
		w.comes(machine, lab.TargetV4)
	}
	newIdentities(t, w)
	w.ctl(0, "", "tor", "exit", "clear", "--user", "alice")
	w.ctl(0, "", "tor", "exit", "clear", "--user", "bob")
}

// newIdentities gives alice a new identity, with and without an exit choice,
// while bob keeps his and his open connection.
func newIdentities(t *testing.T, w *torWorld) {
	bobs, err := w.openLine(phone, netip.AddrPortFrom(lab.TargetV4, 7))
	if err != nil {
		t.Fatal(err)
	}
	defer bobs.Close()
	circuits := func(user string, used bool) map[string]bool {
		var all struct{ Items []tor.Circuit }
		w.ctlJSON(&all, "tor", "circuit", "list")
		out := map[string]bool{}
		for _, c := range all.Items {
			if c.State == "CLOSING" || used && c.Streams == 0 {
				continue
			}
			for _, d := range c.Devices {
				if d.User == user {
					out[c.ID] = true
				}
			}
		}
		return out
	}
	for _, chosen := range []bool{true, false} {
		if !chosen {
			w.ctl(0, "", "tor", "exit", "clear", "--user", "alice")
		}
		for _, m := range []string{laptop, phone} {
			w.comes(m, lab.TargetV4)
			if _, err := w.lookUp(m, "target.test"); err != nil {
				t.Logf("look-up: %v", err)
			}
		}
		alices, carrying := circuits("alice", false), circuits("bob", true)
		if len(alices) == 0 || len(carrying) == 0 {
			t.Fatalf("circuits of alice %v, of bob %v", alices, carrying)
		}
		hers, err := w.openLine(laptop, netip.AddrPortFrom(lab.TargetV4, 7))
		if err != nil {
			t.Fatal(err)
		}
		w.ctl(0, "", "tor", "newid", "--user", "alice")
		if err := hers.echo(10 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("alice's connection through a circuit that was closed: %v", err)
		}
		_ = hers.Close()
		after := circuits("alice", false)
		for id := range alices {
			if after[id] {
				t.Errorf("circuit %s of alice is still there", id)
			}
		}
		left := circuits("bob", true)
		for id := range carrying {
			if !left[id] {
				t.Errorf("circuit %s of bob is gone", id)
			}
		}
		if err := bobs.echo(10 * time.Second); err != nil {
			t.Errorf("bob's connection: %v", err)
		}
		w.comes(laptop, lab.TargetV4) // with the new identity
		for id := range circuits("alice", false) {
			if alices[id] {
				t.Errorf("alice uses circuit %s again", id)
			}
		}
	}
}
