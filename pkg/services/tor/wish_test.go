package tor

import (
	"slices"
	"testing"
	"time"

	api "vpnd/pkg/api/tor"
)

// told are the events so far.
func (w *world) told() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		out = append(out, with(e.Type, e.Message))
	}
	return out
}

func TestWishesAreToldOnceAndKeepTheirReason(t *testing.T) {
	w := still(t)
	set := func(v api.Wish, message, reason string) {
		t.Helper()
		r := &api.WishRequest{}
		r.Body.Wish, r.Body.Message, r.Body.Reason = v, message, reason
		if _, err := w.s.setWish(t.Context(), func(x *wish) { x.take(r) }); err != nil {
			t.Fatal(err)
		}
	}
	process := func(v string) {
		t.Helper()
		if _, err := w.s.setWish(t.Context(), func(x *wish) { x.Process = v }); err != nil {
			t.Fatal(err)
		}
	}
	set(api.WishUp, "", "")
	set(api.WishDown, "", "attack")
	set(api.WishDown, "", "")
	if st := w.s.Status(); st.Reason != "the operator took the lane down: attack" {
		t.Errorf("after a second down: %q", st.Reason)
	}
	set(api.WishMaintenance, "back soon", "")
	set(api.WishMaintenance, "back soon", "")
	set(api.WishDown, "", "")
	if st := w.s.Status(); st.Reason != "the operator took the lane down" {
		t.Errorf("after another wish between: %q", st.Reason)
	}
	process(processStop)
	process(processStop)
	process(processStart)
	want := []string{
		"tor.wish_changed: down: attack", "tor.wish_changed: maintenance: back soon", "tor.wish_changed: down",
		"tor.stop_wished", "tor.start_wished",
	}
	if got := w.told(); !slices.Equal(got, want) {
		t.Errorf("told %q, not %q", got, want)
	}
}

// A stopped tor is told of, and leaves none of its figures behind.
func TestAStoppedTorIsToldOf(t *testing.T) {
	t.Parallel()
	w := begun(t)
	if st := w.up(); st.RxBytes == 0 {
		t.Fatalf("nothing is counted: %+v", st)
	}
	if _, err := w.s.setWish(t.Context(), func(x *wish) { x.Process = processStop }); err != nil {
		t.Fatal(err)
	}
	st := w.until("stopped", func(st *api.Status) bool { return st.Process == api.ProcessStopped })
	if st.RxBytes != 0 || st.TxBytes != 0 || st.Circuit || st.Reason != "tor is stopped by the operator" {
		t.Errorf("of a stopped tor: %+v", st)
	}
	if got := w.told(); !slices.Contains(got, "tor.stopped") || slices.Contains(got, "lane.changed") {
		t.Errorf("told %q", got)
	}
}

func TestUsedBridgesAreInTheAnswer(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.up()
	if _, err := w.s.bridges.Add("192.0.2.1:443"); err != nil {
		t.Fatal(err)
	}
	o := well()
	o.Dir = false
	w.order(o)
	at := time.Now()
	st, err := w.s.useBridges(t.Context(), true)
	if err != nil || time.Since(at) < answerWithin && (st.Lane != "maintenance" || st.Reason != "tor has not enough directory information through bridges") {
		t.Errorf("%+v, %v", st, err)
	}
}
