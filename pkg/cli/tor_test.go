package cli_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
)

func TestTorInTrouble(t *testing.T) {
	w := fakevpnd.New()
	w.Do(trouble)
	term := terminal(t, w)
	golden(t, "tor_status_trouble.txt", term.Run(t.Context(), "tor", "status").Out)
	term.Env = map[string]string{"LANG": "C", "NO_COLOR": "1"}
	r := term.Run(t.Context(), "tor", "status")
	for _, c := range r.Out {
		if c > 0x7f {
			t.Fatalf("%q in a locale without it:\n%s", c, r.Out)
		}
	}
}

func TestTorComesUpWhileWaitedFor(t *testing.T) {
	for _, args := range []string{"tor up --wait", "lane up tor --wait", "tor start --wait", "tor bootstrap", "wait tor=up"} {
		for _, tty := range []bool{false, true} {
			w := fakevpnd.New()
			w.Do(func(w *fakevpnd.World) {
				w.Bootstrapped(tor.Bootstrap{Percent: 40, Tag: "loading", Summary: "Loading"})
			})
			term := cli.Terminal{Host: serve(t, w), TTY: tty, Width: 80, Height: 24, Now: fakevpnd.Now(), Env: map[string]string{"NO_COLOR": "1"}}
			done := time.AfterFunc(300*time.Millisecond, func() {
				w.Do(func(w *fakevpnd.World) { w.Bootstrapped(tor.Bootstrap{Percent: 100, Tag: "done", Summary: "Done"}) })
			})
			r := term.Run(t.Context(), append(strings.Fields(args), "--timeout", "20s")...)
			done.Stop()
			if r.Status != 0 {
				t.Errorf("%s: exit status %d: %s", args, r.Status, r.Err)
			}
			if want := "40\tloading\tLoading\t-\n100\tdone\tDone\t-\n"; args == "tor bootstrap" && !tty && r.Out != want {
				t.Errorf("printed %q, want %q", r.Out, want)
			}
			if args == "tor bootstrap" && tty && (strings.Count(r.Out, "\n") != 1 || !strings.Contains(r.Out, "\r\x1b[2K")) {
				t.Errorf("no line that is written over: %q", r.Out)
			}
		}
	}
}

func TestWithoutTheBinaryUpIsUnhealthy(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) { w.Tor.Process = tor.ProcessMissing })
	if r := terminal(t, w).Run(t.Context(), "tor", "up"); r.Status != 9 || !strings.Contains(r.Err, "tor is missing") {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
}

func TestTorStatusShowsProgressWhileWatched(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		w.Bootstrapped(tor.Bootstrap{Percent: 40, Tag: "loading", Summary: "Loading"})
	})
	out, _ := background(t, terminal(t, w), "tor", "status", "-w")
	out.shows(t, "████░░░░░░  40 %")
	w.Do(func(w *fakevpnd.World) {
		w.Bootstrapped(tor.Bootstrap{Percent: 70, Tag: "more", Summary: "Loading more", Warning: "slow"})
	})
	out.shows(t, "███████░░░  70 %")
	out.shows(t, "more: Loading more")
	out.shows(t, "slow")
}

func TestTorEventsAreThoseOfTheLanes(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	term.TTY = false
	out, _ := background(t, term, "tor", "events", "-f", "--since", "100d", "-o", "jsonl")
	out.shows(t, "tor.bootstrapped")
	w.Do(func(w *fakevpnd.World) {
		w.Events = append(w.Events,
			events.Event{ID: "evt_6", Type: "user.created", Missed: 5, Time: fakevpnd.Now()},
			events.Event{ID: "evt_7", Type: "leak.found", Missed: 2, Time: fakevpnd.Now()},
			events.Event{ID: "evt_8", Type: "torrent.started", Time: fakevpnd.Now()},
			events.Event{ID: "evt_9", Type: "lane.changed", Time: fakevpnd.Now()})
	})
	out.shows(t, "lane.changed")
	var seen []string
	for line := range strings.Lines(out.String()) {
		var e events.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, fmt.Sprint(e.Type, " ", e.Missed))
	}
	// What was lost before an event that is not shown was lost all the same.
	if got, want := strings.Join(seen, ", "), "tor.bootstrapped 0, leak.found 10, lane.changed 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBridgesFromStandardInput(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	term.TTY, term.In = false, "Bridge 192.0.2.20:1\n\nBridge 192.0.2.21:1\nnonsense\n"
	if r := term.Run(t.Context(), "tor", "bridge", "add", "-"); r.Status != 2 || strings.Count(r.Out, "\n") != 2 {
		t.Errorf("exit status %d: %s%s", r.Status, r.Out, r.Err)
	}
	w.Do(func(w *fakevpnd.World) {
		if n := len(w.TorNet.Bridges); n != 5 {
			t.Errorf("%d bridges, want 5", n)
		}
	})
	if r := term.Run(t.Context(), "tor", "bridge", "add", "obfs4", "192.0.2.22:1", "cert=x"); r.Status != 0 || !strings.Contains(r.Out, "obfs4 192.0.2.22:1 cert=x") {
		t.Errorf("exit status %d: %s%s", r.Status, r.Out, r.Err)
	}
}

func TestFailedChecksAreUnhealthy(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		w.TorNet.Check = tor.Check{URL: "https://check.example/", Message: "the page saw this host"}
		w.TorNet.Reached = tor.BridgeTest{Message: "stuck at 5 %: Connection refused"}
	})
	for _, args := range []string{"tor check", "tor bridge test 9b11"} {
		if r := terminal(t, w).Run(t.Context(), strings.Fields(args)...); r.Status != 9 || !strings.Contains(r.Out, "✗") || strings.Contains(r.Err, "error") {
			t.Errorf("%s: exit status %d: %s%s", args, r.Status, r.Out, r.Err)
		}
	}
}

func TestCircuitsAreInTheOrderOfTheirNumbers(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		w.TorNet.Circuits = []tor.Circuit{{ID: "100"}, {ID: "9"}, {ID: "20"}}
		w.TorNet.Streams = []tor.Stream{{ID: "11"}, {ID: "2"}}
	})
	for args, want := range map[string]string{"tor circuit list": "9\n20\n100\n", "tor stream list": "2\n11\n"} {
		if r := terminal(t, w).Run(t.Context(), append(strings.Fields(args), "-o", "name")...); r.Out != want {
			t.Errorf("%s: %q, want %q", args, r.Out, want)
		}
	}
}

func TestNoRelaysAndWrongLimits(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) { w.TorNet.Relays = nil })
	if r := terminal(t, w).Run(t.Context(), "tor", "relay", "list", "--limit", "0"); r.Status != 0 || r.Err != "no relays\n" {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
	if r := terminal(t, w).Run(t.Context(), "tor", "relay", "list", "--country", "germany"); r.Status != 2 || !strings.Contains(r.Err, "error: country: is too long: at most 2 characters") || !strings.Contains(r.Err, "hint: ") {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
}

func TestWatchingSaysWhatDoesNotFit(t *testing.T) {
	term := terminal(t, fakevpnd.New())
	term.Height = 5
	out, _ := background(t, term, "tor", "status", "-w")
	out.shows(t, "more lines do not fit)")
}
