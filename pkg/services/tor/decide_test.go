package tor

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
)

// TestTheLaneIsUpOnlyWhenAllIsWell goes through every combination: one that
// lacks anything is not up, and says why.
func TestTheLaneIsUpOnlyWhenAllIsWell(t *testing.T) {
	bools := []bool{true, false}
	processes := []api.ProcessState{api.ProcessRunning, api.ProcessMissing, api.ProcessStopped, api.ProcessStarting, api.ProcessHung, api.ProcessFailed, ""}
	each := func(do func(w wish, o observation, all bool)) {
		for _, wished := range []api.Wish{api.WishUp, api.WishMaintenance, api.WishDown} {
			for _, process := range []string{processStart, processStop} {
				for _, state := range processes {
					for bits := range 1 << 6 {
						bit := func(n int) bool { return bits>>n&1 == 0 }
						for _, percent := range []int{100, 99, 0} {
							for _, refused := range []string{"", "bad"} {
								do(wish{Wish: wished, Process: process}, observation{
									process: state, gateways: bit(0), dir: bit(1), circuit: bit(2), live: bit(3), relays: bit(4),
									probe: probeState{good: bit(5)}, boot: api.Bootstrap{Percent: percent}, refused: refused,
								}, wished == api.WishUp && process == processStart && state == api.ProcessRunning && bits == 0 && percent == 100 && refused == "")
							}
						}
					}
				}
			}
		}
	}
	n := 0
	each(func(w wish, o observation, all bool) {
		for _, skewed := range bools {
			if o.skew = 0; skewed { // alone it is no reason: tor takes a clock that is some hours off
				o.skew = 2 * time.Hour
			}
			n++
			d := decide(w, o)
			want := lanes.TorMaintenance
			switch {
			case all:
				want = lanes.TorUp
			case w.Wish == api.WishDown:
				want = lanes.TorBlocked
			}
			if d.state != want || (d.reason == "") != all {
				t.Fatalf("%+v and %+v give %+v", w, o, d)
			}
		}
	})
	if n != 3*2*7*64*3*2*2 {
		t.Errorf("%d cases", n)
	}
}

func TestReasonsAndHintsFit(t *testing.T) {
	long := strings.Repeat("ü", 400)
	running := observation{process: api.ProcessRunning, gateways: true}
	for _, c := range []struct {
		w          wish
		o          observation
		want, hint string
	}{
		{wish{Wish: api.WishMaintenance, Message: "m", Reason: "r"}, running, "m", "vpnctl tor up"},
		{wish{Wish: api.WishMaintenance, Reason: "r"}, running, "the operator put the lane into maintenance: r", "vpnctl tor up"},
		{wish{Wish: api.WishDown, Reason: long + long}, running, "the operator took the lane down: ü", "vpnctl tor up"},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessFailed, why: "w", hint: "h"}, "tor is not running: w", "h"},
		{wish{Wish: api.WishUp, Process: processStart}, running, "tor is connecting, 0 %", ""},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessRunning, gateways: true, boot: api.Bootstrap{Percent: 5, Warning: "Clock skew -9000"}}, "tor is connecting, 5 %: Clock skew", "timedatectl"},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessRunning, gateways: true, boot: api.Bootstrap{Percent: 5}}, "tor is connecting, 5 %", "connection to the internet"},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessRunning, gateways: true, relays: true, live: true, dir: true, circuit: true, boot: api.Bootstrap{Percent: 100}}, "no test circuit was built yet", ""},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessRunning, gateways: true, relays: true, live: true, dir: true, circuit: true, boot: api.Bootstrap{Percent: 100}, probe: probeState{failed: probeTries, last: api.Probe{Message: "p"}}}, "test circuits cannot be built: p", ""},
		{wish{Wish: api.WishDown, Process: processStop}, observation{process: api.ProcessStopped}, "the operator took the lane down", "vpnctl tor start, and then vpnctl tor up"},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessRunning, gateways: true, bridges: true, boot: api.Bootstrap{Percent: 5, Warning: "refused"}}, "tor is connecting through bridges, 5 %: refused", "vpnctl tor bridge test"},
		{wish{Wish: api.WishUp, Process: processStart}, observation{process: api.ProcessRunning, gateways: true, bridges: true, relays: true, live: true, boot: api.Bootstrap{Percent: 100}}, "tor has not enough directory information through bridges", "vpnctl tor bridge list"},
	} {
		d := decide(c.w, c.o)
		if !strings.HasPrefix(d.reason, c.want) || !strings.Contains(d.hint, c.hint) || utf8.RuneCountInString(d.reason) > 500 {
			t.Errorf("%+v: %+v", c.w, d)
		}
	}
}

func TestAProbeCountsAfterThreeFailures(t *testing.T) {
	ok, bad := api.Probe{OK: true}, api.Probe{}
	var p probeState
	for i, c := range []struct {
		last api.Probe
		good bool
	}{{bad, false}, {ok, true}, {bad, true}, {bad, true}, {ok, true}, {bad, true}, {bad, true}, {bad, false}, {bad, false}, {ok, true}} {
		if p = p.next(c.last); p.good != c.good {
			t.Errorf("probe %d: %+v", i, p)
		}
	}
}
