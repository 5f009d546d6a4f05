//go:build linux

package nft_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"vpnd/pkg/nft"
)

// A change of state must not build on rules that somebody has changed meanwhile.
func TestAChangeOfStateRepairsAndTells(t *testing.T) {
	for _, next := range []nft.State{torUp, torMaintenance, torBlocked, {}} {
		w := newWorld(t, torConfig())
		apply(t, w, torMaintenance)
		stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
			c.FlushChain(&nftables.Chain{Name: "c_gate", Table: table})
		})
		repaired, err := w.fw.Apply(context.Background(), next)
		must(t, err)
		if !strings.Contains(repaired.String(), "c_gate") {
			t.Errorf("%s: repaired %q", next, repaired)
		}
		fresh(t, w, next)
		touch(t, w) // of no concern to us
		if repaired, err = w.fw.Apply(context.Background(), torUp); err != nil || !repaired.OK() {
			t.Errorf("%s: repaired %q, %v", next, repaired, err)
		}
		fresh(t, w, torUp)
	}
}

// Every change of state leaves exactly the rules that a new table would have.
func TestEveryChangeOfState(t *testing.T) {
	w := newWorld(t, torConfig())
	states := []nft.State{torUp, torMaintenance, torBlocked, {}, {Tor: nft.TorUp}, {Tor: nft.TorMaintenance}}
	for _, from := range states {
		for _, to := range states {
			apply(t, w, from)
			apply(t, w, to)
			fresh(t, w, to)
		}
	}
}

// What an Apply that failed has left behind is no stranger's doing.
func TestOwnFailureIsNoRepair(t *testing.T) {
	w := newWorld(t, torConfig())
	apply(t, w, torUp)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.fw.Apply(ctx, torBlocked); err == nil {
		t.Fatal("no error")
	}
	if repaired, err := w.fw.Apply(context.Background(), torBlocked); err != nil || !repaired.OK() {
		t.Errorf("repaired %q, %v", repaired, err)
	}
	fresh(t, w, torBlocked)
}

func TestWatchTellsOfEveryChange(t *testing.T) {
	w := newWorld(t, torConfig())
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan struct{}, 1000), make(chan error, 1)
	go func() { ended <- nft.Watch(ctx, w.server.Fd(), func() { told <- struct{}{} }) }()
	await := func(what string) {
		t.Helper()
		select {
		case <-told:
		case err := <-ended:
			t.Fatalf("%s: %v", what, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("not told of %s", what)
		}
		for { // the rest of the same change
			select {
			case <-told:
				continue
			case <-time.After(50 * time.Millisecond):
			}
			return
		}
	}
	await("the beginning")
	apply(t, w, torUp)
	await("the first Apply")
	apply(t, w, torBlocked)
	await("a change of state")
	stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
		must(t, c.DelRule(ruleIn(t, c, table, "c_forward", 0)))
	})
	await("a deleted rule")
	stranger(t, w, func(c *nftables.Conn, _ *nftables.Table) { c.FlushRuleset() })
	await("a flush")
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
