package gateway

import (
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"testing"
)

// nobody is a connection that is only compared.
type nobody struct {
	net.Conn
	n int
}

// TestLimiterAgainstAnOracle compares with two plain slices.
func TestLimiterAgainstAnOracle(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		most := 1 + rnd.IntN(5)
		l := newLimiter(most)
		var idle, busy, gone []net.Conn
		drop := func(s []net.Conn, c net.Conn) []net.Conn {
			return slices.DeleteFunc(s, func(o net.Conn) bool { return o == c })
		}
		for step := range 200 {
			var c net.Conn
			var state http.ConnState
			var want net.Conn
			all := slices.Concat(idle, busy, gone)
			if len(all) == 0 || rnd.IntN(3) == 0 {
				c, state = &nobody{n: step}, http.StateNew
				idle = append(idle, c)
				if len(idle)+len(busy) > most {
					switch {
					case len(idle) > 1:
						want = idle[0]
					case len(busy) > 0:
						want = busy[0]
					default:
						want = c
					}
					idle, busy, gone = drop(idle, want), drop(busy, want), append(gone, want)
				}
			} else {
				c = all[rnd.IntN(len(all))]
				state = []http.ConnState{http.StateActive, http.StateIdle, http.StateClosed}[rnd.IntN(3)]
				alive := !slices.Contains(gone, c)
				idle, busy = drop(idle, c), drop(busy, c)
				switch {
				case state == http.StateClosed:
					gone = drop(gone, c)
				case alive && state == http.StateActive:
					busy = append(busy, c)
				case alive:
					idle = append(idle, c)
				}
			}
			if got := l.note(c, state); got != want {
				t.Fatalf("seed %d step %d: closed %v, want %v", seed, step, got, want)
			}
			if len(l.open) != len(idle)+len(busy) || l.idle.Len() != len(idle) || l.busy.Len() != len(busy) {
				t.Fatalf("seed %d step %d: %d open, want %d idle and %d busy", seed, step, len(l.open), len(idle), len(busy))
			}
		}
	}
}
