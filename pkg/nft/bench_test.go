//go:build linux

package nft_test

import (
	"context"
	"testing"

	"vpnd/pkg/nft"
)

// BenchmarkApply is one batch with all rules.
func BenchmarkApply(b *testing.B) {
	w := newWorld(b, testConfig())
	apply(b, w, up)
	for b.Loop() {
		apply(b, w, up)
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
