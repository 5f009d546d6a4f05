//go:build linux

package lanes_test

import (
	"fmt"
	"testing"

	api "vpnd/pkg/api/lanes"
)

// BenchmarkChange adds and removes one device beside others. The cost must not
// grow with their number.
func BenchmarkChange(b *testing.B) {
	for _, present := range []int{10, 250, 1_000, 10_000} {
		b.Run(fmt.Sprintf("beside %d", present), func(b *testing.B) {
			s := newServer(b)
			s.role.Compare = 0
			s.run()
			peers := make([]api.Peer, present)
			for i := range peers {
				peers[i] = newPeer(2 + i)
			}
			_, err := s.sync(peers...)
			must(b, err)
			one := newPeer(60_000)
			var last *api.Removed
			for b.Loop() {
				must(b, s.put(one))
				last, err = s.remove(one)
				must(b, err)
			}
			if len(last.Last) > 1 {
				b.Errorf("last counters %+v", last.Last)
			}
		})
	}
}
