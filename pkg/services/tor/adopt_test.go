package tor

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/durable"
	"vpnd/pkg/fault"
)

func TestAWishSurvivesTheService(t *testing.T) {
	t.Parallel()
	w := begun(t)
	pid := w.up().PID
	for _, c := range []struct {
		wish api.Wish
		lane lanes.TorState
	}{{api.WishMaintenance, lanes.TorMaintenance}, {api.WishDown, lanes.TorBlocked}, {api.WishUp, lanes.TorUp}} {
		if st := w.wish(c.wish, "for "+string(c.wish)); c.wish != api.WishUp && st.Lane != string(c.lane) {
			t.Errorf("after a wish of %s the lane is %s", c.wish, st.Lane)
		}
		w.restart()
		w.mu.Lock()
		w.asks = nil
		w.mu.Unlock()
		st := w.until(string(c.lane), func(st *api.Status) bool { return st.Lane == string(c.lane) && st.Process == api.ProcessRunning })
		if st.Wish != c.wish || st.PID != pid || c.wish == api.WishMaintenance && st.Reason != "for maintenance" {
			t.Errorf("after a restart with a wish of %s: %+v", c.wish, st)
		}
		w.mu.Lock()
		if c.wish != api.WishUp && slices.Contains(w.asks, lanes.TorUp) {
			t.Errorf("with a wish of %s the lane was up", c.wish)
		}
		w.mu.Unlock()
	}
}

func TestAnUpLaneStaysUpOverARestart(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.up()
	w.stop()
	w.mu.Lock()
	w.asks = nil
	w.mu.Unlock()
	w.make()
	w.start()
	w.up()
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.asks, func(s lanes.TorState) bool { return s != lanes.TorUp }) {
		t.Errorf("lanes was asked for %v", w.asks)
	}
}

func TestATorWithoutAPidFileIsFoundByItsSocket(t *testing.T) {
	t.Parallel()
	w := begun(t)
	pid := w.up().PID
	w.stop()
	if err := os.Remove(w.s.paths.pid()); err != nil {
		t.Fatal(err)
	}
	w.make()
	w.start()
	if st := w.up(); st.PID != pid {
		t.Errorf("tor is %d, was %d", st.PID, pid)
	}
	if p := adopt(w.s.paths); p == nil || p.PID != pid {
		t.Errorf("the pid file says %+v", p)
	}
}

func TestAnotherProcessIsNeverSignalled(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.up()
	w.stop()
	if err := adopt(w.s.paths).stop(syscall.SIGKILL, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "120")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- other.Wait() }()
	t.Cleanup(func() { _ = other.Process.Kill() })
	right := process{PID: other.Process.Pid, Start: startTime(other.Process.Pid), Boot: bootID()}
	for name, p := range map[string]process{
		"a start time of before": {PID: right.PID, Start: "1", Boot: right.Boot},
		"no start time":          {PID: right.PID, Boot: right.Boot},
		"another boot":           {PID: right.PID, Start: right.Start, Boot: "b"},
		"no boot":                {PID: right.PID, Start: right.Start},
		"pid 0":                  {Start: startTime(os.Getpid()), Boot: right.Boot},
		"pid -1":                 {PID: -1, Start: "1", Boot: right.Boot},
		"pid 1":                  {PID: 1, Start: startTime(1), Boot: right.Boot},
	} {
		if err := durable.WriteJSON(w.s.paths.pid(), p); err != nil {
			t.Fatal(err)
		}
		if got := adopt(w.s.paths); got != nil {
			t.Errorf("%s: adopted %+v", name, got)
		}
		if err := p.stop(syscall.SIGTERM, time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.make()
	w.start()
	if st := w.up(); st.PID == right.PID {
		t.Error("another process is taken for tor")
	}
	select {
	case err := <-ended:
		t.Errorf("the other process ended: %v", err)
	default:
	}
}

// A socket that this very process listens on is no tor of an earlier run.
func TestOurOwnSocketIsNotAdopted(t *testing.T) {
	w := still(t)
	l, err := net.Listen("unix", w.s.paths.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p := adopt(w.s.paths); p != nil {
		t.Errorf("adopted %+v", p)
	}
}

func TestAWishWithoutLanesIsNotedAndSaid(t *testing.T) {
	w := still(t)
	w.silent = true
	_, err := w.s.setWish(t.Context(), func(x *wish) { x.Wish = api.WishDown })
	if !errors.Is(err, fault.Unavailable) || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
	w.make()
	if err := w.s.ask(t.Context()); err == nil {
		t.Error("lanes answered")
	}
	if st := w.s.Status(); st.Wish != api.WishDown || st.Lane != string(lanes.TorBlocked) || st.Reason != "lanes does not answer" {
		t.Errorf("the status is %+v", st)
	}
}

func TestSilentLanesAreShown(t *testing.T) {
	w := still(t)
	w.wish(api.WishMaintenance, "m")
	if st := w.s.Status(); st.Lane != string(lanes.TorMaintenance) {
		t.Errorf("the status is %+v", st)
	}
	w.s.answered = w.s.answered.Add(-lease)
	if st := w.s.Status(); st.Lane != string(lanes.TorBlocked) || st.Reason != "lanes does not answer" {
		t.Errorf("a lease later the status is %+v", st)
	}
}
