package tor

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

func TestTheLaneIsUpOnlyWhileTorIsWell(t *testing.T) {
	t.Parallel()
	w := begun(t)
	st := w.up()
	if st.Process != api.ProcessRunning || st.PID == 0 || st.Version != "0.4.9.11" || !st.Probe.OK || st.RxBytes != 7 || st.Restarts != 0 || st.Reason != "" {
		t.Errorf("up, and the status is %+v", st)
	}
	for reason, change := range map[string]func(*orders){
		"tor is connecting, 40 %: no route": func(o *orders) { o.Bootstrap, o.Warning = 40, "no route" },
		"network down":                      func(o *orders) { o.Live = false },
		"not enough directory information":  func(o *orders) { o.Dir = false },
		"no circuit":                        func(o *orders) { o.Circuit = false },
		"test circuits cannot be built":     func(o *orders) { o.NoCircuits = true },
		"clock seems 2h0m0s off": func(o *orders) {
			o.Dir, o.Say = false, []string{"STATUS_GENERAL WARN CLOCK_SKEW SKEW=-7200 SOURCE=OR:192.0.2.1:1"}
		},
	} {
		o := well()
		change(&o)
		w.order(o)
		w.maintenance(reason)
		w.order(well())
		w.up()
	}
	if again := w.up(); again.PID != st.PID || again.Restarts != 0 {
		t.Errorf("tor was started again: %+v", again)
	}
}

func TestADeadTorIsStartedAgainAndItsWordsAreShown(t *testing.T) {
	t.Parallel()
	w := begun(t)
	before := w.up()
	o := well()
	o.Die = "Assertion x failed"
	w.order(o)
	st := w.until("failed three times", func(st *api.Status) bool { return st.Restarts >= 3 && st.Process == api.ProcessFailed })
	if !strings.Contains(st.Reason, "tor is not running: Assertion x failed") || st.PID != 0 || !strings.Contains(st.Hint, "notice.log") {
		t.Errorf("failed, and the status is %+v", st)
	}
	w.order(well())
	if st := w.up(); st.PID == before.PID {
		t.Error("the dead tor is said to be up")
	}
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	k := &keeper{Service: still(t).s}
	var got []time.Duration
	for range 10 {
		k.again("x")
		got = append(got, k.backoff)
		if d := time.Until(k.retry); d > k.backoff {
			t.Errorf("it waits for %s with a back-off of %s", d, k.backoff)
		}
	}
	want := []time.Duration{200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(got, want) {
		t.Errorf("back-off %v, want %v", got, want)
	}
	k.wish.Process = processStop // by which an operator starts over
	k.step(t.Context())
	if k.backoff != 0 || !k.retry.IsZero() {
		t.Errorf("back-off %s after a stop", k.backoff)
	}
}

func TestAHungTorIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	w := begun(t)
	before := w.up()
	if err := syscall.Kill(before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	st := w.until("hung", func(st *api.Status) bool { return st.Process == api.ProcessHung })
	if !strings.Contains(st.Reason, "tor does not answer") || st.PID != before.PID {
		t.Errorf("hung, and the status is %+v", st)
	}
	if st := w.up(); st.PID == before.PID || st.Restarts != 1 {
		t.Errorf("after a hang the status is %+v", st)
	}
	if startTime(before.PID) != "" {
		t.Error("the hung process is still there")
	}
}

func TestAMissingTorIsNamedAndNoticedWhenItAppears(t *testing.T) {
	t.Parallel()
	w := still(t)
	if err := os.Remove(w.cfg.Tor.Binary); err != nil {
		t.Fatal(err)
	}
	w.start()
	st := w.maintenance("tor is not installed")
	if st.Process != api.ProcessMissing || st.Hint != "apt-get install tor" {
		t.Errorf("missing, and the status is %+v", st)
	}
	if want := "tor is not installed: " + w.cfg.Tor.Binary + " is not there"; st.Reason != want {
		t.Errorf("the reason is %q, not %q", st.Reason, want)
	}
	_, err := w.newID("", "", true)
	if f := fault.From(err); f.Code != fault.Unavailable || f.Message != st.Reason || f.Hint != st.Hint {
		t.Errorf("newid without tor: %+v", f)
	}
	w.install()
	w.up()
}

func TestATakenPortIsNamed(t *testing.T) {
	t.Parallel()
	w := still(t)
	at := netip.AddrPortFrom(w.gateway, w.cfg.Tor.DNSPort)
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.start()
	w.maintenance(at.String() + " is taken by another program")
	_ = l.Close()
	w.up()
}

func TestStopEndsTorAndStartBringsItBack(t *testing.T) {
	t.Parallel()
	w := begun(t)
	before := w.up()
	if _, err := w.s.setWish(t.Context(), func(x *wish) { x.Process = processStop }); err != nil {
		t.Fatal(err)
	}
	st := w.until("stopped", func(st *api.Status) bool { return st.Process == api.ProcessStopped })
	if st.Lane != string(lanes.TorMaintenance) || st.PID != 0 || startTime(before.PID) != "" {
		t.Errorf("stopped, and the status is %+v", st)
	}
	w.restart()
	if st := w.until("stopped", func(st *api.Status) bool { return st.Process == api.ProcessStopped }); st.WishProcess != processStop {
		t.Errorf("after a restart the status is %+v", st)
	}
	if _, err := w.s.setWish(t.Context(), func(x *wish) { x.Process = processStart }); err != nil {
		t.Fatal(err)
	}
	w.up()
}
