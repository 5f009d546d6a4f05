package tor

import (
	"errors"
	"slices"
	"testing"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

// hang has tor fall silent in the middle of attaching a stream, by which the
// one who attaches waits with its lock held.
func hang(w *world) {
	w.t.Helper()
	o := well()
	o.Mute = "ATTACHSTREAM"
	o.Say = []string{"STREAM 77 NEW 0 192.0.2.1:80 SOURCE_ADDR=10.9.0.2:4000 PURPOSE=USER"}
	w.order(o)
	w.until("a command that is not answered", func(*api.Status) bool { return slices.Contains(w.commands(), "ATTACHSTREAM 77 0") })
}

func TestNothingWaitsForATorThatHangsWhileAStreamIsAttached(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.connect("alice", "laptop", "10.9.0.2")
	pid := w.up().PID
	c, err := w.s.tor()
	if err != nil {
		t.Fatal(err)
	}
	hang(w)
	before := w.asked()
	for range 50 {
		if st := w.s.Status(); st.PID != pid {
			t.Errorf("the status is %+v", st)
		}
		w.s.view(t.Context(), "u1")
	}
	for w.asked() == before && c.Err() == nil { // the lease is renewed meanwhile
		w.s.Status()
	}
	if c.Err() != nil {
		t.Error("a status or the lease waited until the command to tor was given up")
	}
	if n := len(w.s.glances); n > 1 {
		t.Errorf("%d questions wait", n)
	}
	w.order(well())
	w.until("tor is asked anew", func(*api.Status) bool {
		now, err := w.s.tor()
		return err == nil && now != c
	})
	if st := w.up(); st.PID != pid {
		t.Errorf("after the hang %+v", st)
	}
}

func TestTheServiceEndsWhileTorHangs(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.up()
	hang(w)
	w.stop() // the test's time limit is the bound
	for _, err := range []error{second(w.s.listCircuits(t.Context())), second(w.s.listStreams(t.Context()))} {
		if !errors.Is(err, fault.Unavailable) {
			t.Errorf("without a connection: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asks)
}
