package tor

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestLastWords(t *testing.T) {
	dir := t.TempDir()
	p := paths{state: dir}
	write := func(path string, lines ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := lastWords(p); got != "" {
		t.Errorf("without a log: %q", got)
	}
	for _, c := range []struct {
		notice, output []string
		want           string
	}{
		{[]string{"x [notice] fine"}, nil, ""},
		{[]string{"x [warn] first", "x [warn] second", "x [notice] fine"}, nil, "second"},
		{[]string{"x [err] bad", "x [warn] later"}, nil, "bad"},
		{[]string{"x [warn] in the log"}, []string{"x [err] at the start"}, "at the start"},
		{[]string{"x [warn] why", "x [err] Reading config failed--see warnings above."}, nil, "why"},
		{[]string{"x [err] Bug: Assertion a failed", "x [err] Bug: frame 1"}, nil, "Bug: Assertion a failed"},
		{[]string{"x [warn] You are running Tor as root."}, nil, ""},
		{[]string{"x [err] far away", strings.Repeat("x", 64<<10)}, nil, ""},
	} {
		write(p.notice(), c.notice...)
		write(p.output(), c.output...)
		if got := lastWords(p); got != c.want {
			t.Errorf("%q and %q: %q, want %q", c.notice[0], c.output, got, c.want)
		}
	}
}

func TestALongLogIsShortened(t *testing.T) {
	p := paths{state: t.TempDir()}
	if err := shorten(p); err != nil {
		t.Errorf("without a log: %v", err)
	}
	log, err := os.OpenFile(p.notice(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // as tor has it open
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, size := range []int{noticeMax - 1, 1} {
		if _, err := log.Write(bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(p.notice() + ".1"); err == nil {
			t.Error("a short log was shortened")
		}
		if err := shorten(p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.WriteString("after"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p.notice()); err != nil || string(got) != "after" {
		t.Errorf("the log is %d bytes, %v", len(got), err)
	}
	if old, err := os.ReadFile(p.notice() + ".1"); err != nil || len(old) != noticeMax {
		t.Errorf("the older log is %d bytes, %v", len(old), err)
	}
	if all, _ := filepath.Glob(filepath.Join(p.state, "*")); len(all) != 2 {
		t.Errorf("left: %v", all)
	}
}

func FuzzLastWords(f *testing.F) {
	f.Add("x [err] a\n")
	f.Add("[warn] [err] \n\n")
	p := paths{state: f.TempDir()}
	f.Fuzz(func(t *testing.T, log string) {
		if err := os.WriteFile(p.notice(), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastWords(p); strings.Contains(got, "\n") || !strings.Contains(log, got) {
			t.Errorf("%q", got)
		}
	})
}

func FuzzFindAddress(f *testing.F) {
	for _, s := range []string{"192.0.2.7", `{"IP":"2001:db8::7"}`, "[2001:db8::7]:80", "fe80::1%eth0", "::ffff:1.2.3.4", "0.0.0.0 1.2.3.4", "a::b", "1.2.3.4:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := findAddress(text)
		if ok != a.IsValid() || ok && (a.Zone() != "" || a.Is4In6() || a.IsUnspecified()) {
			t.Errorf("%q gives %s, %t", text, a, ok)
		}
		// An address that stands alone is found.
		if want, err := netip.ParseAddr(text); err == nil && !want.Unmap().IsUnspecified() && want.Zone() == "" && a != want.Unmap() {
			t.Errorf("%q gives %s", text, a)
		}
	})
}

func TestAnEndIsSaidInWords(t *testing.T) {
	for script, want := range map[string]string{"kill -9 $$": "killed (signal 9)", "exit 3": "exit status 3"} {
		cmd := exec.Command("/bin/sh", "-c", script)
		_ = cmd.Run()
		p := &process{state: cmd.ProcessState, exited: make(chan struct{})}
		close(p.exited)
		if got := p.end(); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}
