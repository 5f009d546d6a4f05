//go:build linux

package nft_test

import (
	"context"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"vpnd/pkg/nft"
)

// BenchmarkRepair finds a rule missing and sends all rules anew, and waits until
// packets on their way are gone. It includes the damage.
func BenchmarkRepair(b *testing.B) {
	w := newWorld(b, testConfig())
	apply(b, w, up)
	for b.Loop() {
		stranger(b, w, func(c *nftables.Conn, table *nftables.Table) {
			c.FlushChain(&nftables.Chain{Name: "c_forward", Table: table})
		})
		apply(b, w, up)
	}
}

// BenchmarkSwap is one change of lane tor's state, from blocked to up or back.
func BenchmarkSwap(b *testing.B) {
	w := newWorld(b, torConfig())
	states := []nft.State{torUp, torBlocked}
	apply(b, w, states[1])
	n := 0
	for b.Loop() {
		apply(b, w, states[n%2])
		n++
	}
}

// BenchmarkSwapWatched is the same while somebody listens, so that the kernel has
// to tell of every rule.
func BenchmarkSwapWatched(b *testing.B) {
	w := newWorld(b, torConfig())
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = nft.Watch(ctx, w.server.Fd(), func() {}) }()
	b.Cleanup(func() { cancel(); <-ended })
	states := []nft.State{torUp, torBlocked}
	apply(b, w, states[1])
	n := 0
	for b.Loop() {
		apply(b, w, states[n%2])
		n++
	}
}

// BenchmarkSwapFloor is the least that a change of rules can be: one batch that
// empties a chain and adds a handful of rules, by an open connection.
func BenchmarkSwapFloor(b *testing.B) {
	w := newWorld(b, torConfig())
	apply(b, w, torUp)
	var c *nftables.Conn
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(w.server.Fd()))
	must(b, err)
	defer func() { _ = c.CloseLasting() }()
	table := c.AddTable(&nftables.Table{Name: "floor", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{Name: "rules", Table: table})
	must(b, c.Flush())
	for b.Loop() {
		c.FlushChain(chain)
		for range 5 {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(ifnameIs(expr.MetaKeyIIFNAME, "wg1"), &expr.Verdict{Kind: expr.VerdictDrop})})
		}
		must(b, c.Flush())
	}
}

// BenchmarkApplyFlip takes lane vpn down and up again. Down waits until
// packets on their way are gone.
func BenchmarkApplyFlip(b *testing.B) {
	w := newWorld(b, testConfig())
	apply(b, w, up)
	for b.Loop() {
		apply(b, w, down)
		apply(b, w, up)
	}
}

// BenchmarkCheckUnchanged is the usual case of a timer.
func BenchmarkCheckUnchanged(b *testing.B) {
	w := newWorld(b, testConfig())
	apply(b, w, up)
	for b.Loop() {
		check(b, w)
	}
}

// BenchmarkCheckAfterChange reads the table, as after a change of any table by
// anybody. It includes that change.
func BenchmarkCheckAfterChange(b *testing.B) {
	w := newWorld(b, testConfig())
	apply(b, w, up)
	for b.Loop() {
		touch(b, w)
		if d := check(b, w); !d.OK() {
			b.Fatal(d)
		}
	}
}

func BenchmarkCounters(b *testing.B) {
	w := newWorld(b, testConfig())
	apply(b, w, nft.State{})
	for b.Loop() {
		if _, err := w.fw.Counters(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
