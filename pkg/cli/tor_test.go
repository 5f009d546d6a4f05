package cli_test

import (
	"strings"
	"testing"
	"time"

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
