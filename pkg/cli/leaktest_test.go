package cli_test

import (
	"strings"
	"testing"

	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
)

func TestLeakTestSaysItClearly(t *testing.T) {
	for _, leaking := range []bool{false, true} {
		status, file := 0, "leaktest.txt"
		if leaking {
			status, file = 9, "leaktest_leaking.txt"
		}
		w := fakevpnd.New()
		w.Do(func(w *fakevpnd.World) { w.Leaking = leaking })
		r := terminal(t, w).Run(t.Context(), "leaktest")
		if r.Status != status || strings.Contains(r.Err, "hint: 'vpnctl lane down tor'") != leaking {
			t.Errorf("exit status %d, want %d: %s", r.Status, status, r.Err)
		}
		golden(t, file, r.Out)
		for _, output := range cli.Outputs() {
			for _, tty := range []bool{false, true} {
				term := terminal(t, w)
				term.TTY = tty
				r := term.Run(t.Context(), "leaktest", "--lane", "vpn", "-o", output)
				if r.Status != status {
					t.Errorf("-o %s: exit status %d, want %d: %s", output, r.Status, status, r.Err)
				}
				if !leaking {
					check(t, "leaktest", output, r)
				}
				if output == "json" {
					golden(t, strings.TrimSuffix(file, ".txt")+".json", r.Out)
				}
				if output == "name" && !strings.HasPrefix(r.Out, "vpn/2026-03-14T") {
					t.Errorf("name %q", r.Out)
				}
			}
		}
	}
}

func TestLeakTestForScripts(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) { w.Leaking = true })
	term := cli.Terminal{Host: serve(t, w), Now: fakevpnd.Now()}
	r := term.Run(t.Context(), "leaktest")
	for _, line := range []string{"verdict\tfailed\n", "lane\ttor\n", "left the host\t2\n", "attempt\tudp443\tipv4\t1\tyes\treply\n"} {
		if !strings.Contains("\n"+r.Out, "\n"+line) {
			t.Errorf("no line %q in\n%s", line, r.Out)
		}
	}
	if all := term.Run(t.Context(), "leaktest", "-o", "wide"); strings.Count(r.Out, "attempt\t") != 1 || !strings.Contains(all.Out, "\nattempt\ttcp\tipv6\t3\tno\treply\n") {
		t.Errorf("more than what leaked:\n%s\nor less than all with -o wide:\n%s", r.Out, all.Out)
	}
	if r.Status != 9 || r.Err != "" {
		t.Errorf("exit status %d, stderr %q", r.Status, r.Err)
	}
}

func TestLeakTestUsage(t *testing.T) {
	for args, want := range map[string]struct {
		status int
		says   string
	}{
		"leaktest --lane fast": {3, `there is no lane "fast"`},
		"leaktest lst":         {2, "did you mean 'vpnctl leaktest list'"},
		"leaktest list x":      {2, "one word too many"},
	} {
		if r := terminal(t, fakevpnd.New()).Run(t.Context(), strings.Fields(args)...); r.Status != want.status || !strings.Contains(r.Err, want.says) {
			t.Errorf("%s: exit status %d: %s", args, r.Status, r.Err)
		}
	}
}
