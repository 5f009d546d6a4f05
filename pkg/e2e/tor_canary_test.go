//go:build linux

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/lanes"
)

// exitLeak is how a leak test that failed ends.
const exitLeak = 9

// leakTests runs the leak test in every state of the lane, breaks rules by
// hand, and wants to be told by the command and, within an interval, unasked.
func leakTests(t *testing.T, w *torWorld) {
	for _, lane := range []string{"tor", "vpn"} {
		// What happened before this test is told once.
		_ = w.Vpnctl(t.Context(), "leaktest", "--lane", lane).Run()
		var r canary.Result
		w.ctlJSON(&r, "leaktest", "--lane", lane)
		if !r.OK || r.Left != 0 || r.Reached != 0 || r.Sent < 20 {
			t.Errorf("lane %s: %+v", lane, r)
		}
	}
	for _, wish := range [][]string{{"tor", "down", "-y"}, {"tor", "maintenance"}} {
		w.ctl(0, "", wish...)
		w.ctl(0, "", "leaktest")
	}
	w.ctl(0, "", "tor", "up", "--wait", "--timeout", "30s")

	for _, broken := range [][]string{
		{"nft", "flush", "ruleset"},
		{"nft", "insert", "rule", "inet", "vpnd", "c_forward", "accept"},
		{"ip", "rule", "del", "pref", "1"},
	} {
		w.server(broken[0], broken[1:]...)
		if out := w.ctl(exitLeak, "", "leaktest"); out == "" {
			t.Errorf("%q: the command says nothing", broken)
		}
		w.ctl(0, "", "leaktest") // it is repaired, and has been told
	}

	if err := w.WriteConfig(w.config + "\n[leaktest]\nevery = \"10s\"\n"); err != nil {
		t.Fatal(err)
	}
	w.ctl(0, "", "service", "reload")
	defer func() {
		if err := w.WriteConfig(w.config); err != nil {
			t.Error(err)
		}
		w.ctl(0, "", "service", "reload")
	}()
	newest := func() (canary.Result, error) {
		var l struct{ Items []canary.Result }
		w.ctlJSON(&l, "leaktest", "list")
		for _, r := range l.Items {
			if r.Lane == lanes.Tor {
				return r, nil
			}
		}
		return canary.Result{}, fmt.Errorf("no test of lane tor yet")
	}
	eventually(t, 30*time.Second, func() error {
		r, err := newest()
		if err == nil && !r.OK {
			t.Fatalf("with no rule broken: %+v", r)
		}
		return err
	})
	w.server("nft", "insert", "rule", "inet", "vpnd", "c_forward", "accept")
	eventually(t, 25*time.Second, func() error {
		r, err := newest()
		if err == nil && r.OK {
			err = fmt.Errorf("the test of %s found nothing", r.At)
		}
		return err
	})
	if out := w.ctl(0, "", "events", "--since", "1m"); !strings.Contains(out, "leaktest.rules_changed") && !strings.Contains(out, "leak.found") {
		t.Errorf("no event tells of it: %q", out)
	}
}
