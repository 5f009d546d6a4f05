package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

func width(s string) int { return view.Width(s) }

func trouble(w *fakevpnd.World) {
	next := fakevpnd.Now().Add(4 * time.Second)
	w.Services[0].State, w.Services[0].Reason, w.Services[0].NextStartAt = "backoff", "exit status 1: cannot open auth.db", &next
	w.Services[4].State, w.Services[4].Reason = "failed", "died 5 times"
	w.Lanes[0].State, w.Lanes[0].Reason = "failed", "device wg0 cannot be made: operation not permitted"
	w.Bootstrapped(tor.Bootstrap{Percent: 45, Tag: "requesting_descriptors", Summary: "Asking for relay descriptors", Warning: "no route to host"})
	w.Problems = []control.Problem{
		{What: "service auth is backoff: exit status 1: cannot open auth.db", Hint: "vpnctl service get auth"},
		{What: "service keys is failed: died 5 times, last because the file with the signing key belongs to somebody else", Hint: "vpnctl service get keys"},
		{What: "lane vpn is failed: device wg0 cannot be made: operation not permitted", Hint: "vpnctl service get lanes"},
	}
}

func terminal(t *testing.T, w *fakevpnd.World) cli.Terminal {
	return cli.Terminal{Host: serve(t, w), TTY: true, Width: 80, Height: 24, Now: fakevpnd.Now(), Env: map[string]string{"NO_COLOR": "1"}}
}

func TestQuestionsAreAskedAtATerminalOnly(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		tty      bool
		args     string
		status   int
		says     string
	}{
		{"yes", "y\n", true, "device delete alice/phone", 0, "Really delete device alice/phone? [y/N]"},
		{"no", "n\n", true, "device delete alice/phone", 6, "nothing was changed"},
		{"enter", "\n", true, "device delete alice/phone", 6, "nothing was changed"},
		{"end of input", "", true, "device delete alice/phone", 6, "nothing was changed"},
		{"script", "y\n", false, "device delete alice/phone", 6, "hint: add -y"},
		{"script with -y", "", false, "device delete alice/phone -y", 0, ""},
		{"the name agrees to the risk", "alice\n", true, "user delete alice", 0, "drop-sessions: closes 2 open sessions"},
		{"yes is not the name", "yes\n", true, "user delete alice", 6, "nothing was changed"},
		{"-y is not for risks", "", false, "user delete alice -y", 6, "--accept-risk=drop-sessions,destroy-data"},
		{"half of the risks", "", false, "user delete alice --accept-risk=destroy-data", 6, "--accept-risk=drop-sessions"},
		{"all risks", "", false, "user delete alice --accept-risk=destroy-data,drop-sessions", 0, ""},
		{"without sessions", "", false, "user delete bob --accept-risk=destroy-data", 0, ""},
		{"a risk that does not exist", "", false, "user delete bob --accept-risk=everything", 2, "the risks are"},
		{"lock-out", "", false, "service stop gateway -y", 6, "--accept-risk=lock-out"},
		{"lock-out accepted", "", false, "service stop gateway --accept-risk=lock-out", 0, ""},
		{"no risk", "", false, "service stop auth", 0, ""},
		{"release", "", false, "ipam release alice/phone", 6, "--accept-risk=drop-sessions"},
		{"kill is explicit", "", false, "session kill alice/phone", 0, ""},
		{"tor down", "n\n", true, "tor down", 6, "Really block lane tor"},
		{"tor down agreed", "y\n", true, "tor down", 0, ""},
		{"lane down in a script", "", false, "lane down tor", 6, "hint: add -y"},
		{"lane vpn down", "vpn\n", true, "lane down vpn", 0, "cuts what devices have open"},
		{"lane vpn down not agreed", "y\n", true, "lane down vpn tor", 6, "bring lanes tor and vpn down"},
		{"new identities for all", "n\n", true, "tor newid --all", 6, "Really give every device"},
		{"new identity for one", "", false, "tor newid --user alice", 0, ""},
		{"bridges that are not in use", "", false, "tor bridge disable", 0, ""},
		{"maintenance is no loss", "", false, "tor maintenance", 0, ""},
		{"suspend is no loss", "", false, "user suspend alice", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := fakevpnd.New()
			term := terminal(t, w)
			term.In, term.TTY = tc.in, tc.tty
			r := term.Run(t.Context(), strings.Fields(tc.args)...)
			if r.Status != tc.status || !strings.Contains(r.Err, tc.says) {
				t.Errorf("exit status %d, want %d; stderr %q, want %q in it", r.Status, tc.status, r.Err, tc.says)
			}
			if tc.status == 6 {
				w.Do(func(w *fakevpnd.World) {
					if len(w.Users) != 3 || len(w.Devices) != 4 || len(w.Sessions) != 3 || len(w.Released) != 0 || len(w.TorNet.Circuits) != 3 || w.Lanes[0].State != "up" || w.Tor.Wish != tor.WishUp || w.Services[2].State != "ready" {
						t.Error("something was changed")
					}
				})
			}
		})
	}
}

func TestPasswordsAreTypedTwiceWithoutEcho(t *testing.T) {
	for _, tc := range []struct {
		name   string
		typed  []string
		status int
		says   string
	}{
		{"the same", []string{"correct horse", "correct horse"}, 0, "Password for dora: "},
		{"different", []string{"correct horse", "correct house"}, 2, "differ"},
		{"given up", []string{"correct horse"}, 130, "nothing was changed"},
		{"empty", []string{"", ""}, 2, "empty"},
		{"too short", []string{"short", "short"}, 2, "password: is too short: at least 8 characters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := fakevpnd.New()
			term := terminal(t, w)
			term.Secrets = tc.typed
			r := term.Run(t.Context(), "user", "create", "dora")
			if r.Status != tc.status || !strings.Contains(r.Err, tc.says) {
				t.Errorf("exit status %d, want %d; stderr %q, want %q in it", r.Status, tc.status, r.Err, tc.says)
			}
			w.Do(func(w *fakevpnd.World) {
				if got := w.Password["dora"]; (got != "") != (tc.status == 0) || tc.status == 0 && got != "correct horse" {
					t.Errorf("password %q", got)
				}
			})
			if strings.Contains(r.Out+r.Err, "correct") {
				t.Errorf("the password was shown: %q", r.Out+r.Err)
			}
		})
	}
}

func TestGeneratedPasswordsAreShownOnceAndDiffer(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	r := term.Run(t.Context(), "user", "create", "dora", "erin", "--generate-password", "-o", "json")
	var l struct {
		Items []struct{ Username, Password string }
	}
	if err := json.Unmarshal([]byte(r.Out), &l); err != nil || len(l.Items) != 2 {
		t.Fatalf("%v: %s%s", err, r.Out, r.Err)
	}
	if l.Items[0].Password == l.Items[1].Password || len(l.Items[0].Password) != 23 {
		t.Errorf("passwords %+v", l.Items)
	}
	w.Do(func(w *fakevpnd.World) {
		if w.Password["dora"] != l.Items[0].Password {
			t.Errorf("printed %q, set %q", l.Items[0].Password, w.Password["dora"])
		}
	})
	if r := term.Run(t.Context(), "user", "create", "dora", "--if-not-exists", "--generate-password", "-o", "json"); r.Status != 0 || strings.Contains(r.Out, "password") {
		t.Errorf("of a user who exists: exit status %d, %s", r.Status, r.Out)
	}
}

func TestEnvironmentStandsForFlags(t *testing.T) {
	host := serve(t, fakevpnd.New())
	for _, tc := range []struct {
		env  map[string]string
		args []string
		want string
		code int
	}{
		{map[string]string{"VPNCTL_OUTPUT": "name"}, []string{"user", "list"}, "alice\nbob\ncarol\n", 0},
		{map[string]string{"VPNCTL_OUTPUT": "json"}, []string{"user", "list", "-o", "name"}, "alice\nbob\ncarol\n", 0},
		{map[string]string{"VPNCTL_OUTPUT": "xml"}, []string{"user", "list"}, "", 2},
		{map[string]string{"VPNCTL_TIMEOUT": "soon"}, []string{"user", "list"}, "", 2},
		{map[string]string{"VPNCTL_QUIET": "true"}, []string{"user", "passwd", "alice", "--password-stdin"}, "", 0},
	} {
		r := cli.Terminal{Host: host, Env: tc.env, In: "correct horse\n"}.Run(t.Context(), tc.args...)
		if r.Status != tc.code || r.Out != tc.want {
			t.Errorf("%v %v: exit status %d, stdout %q, stderr %q", tc.env, tc.args, r.Status, r.Out, r.Err)
		}
		if tc.code == 0 && r.Err != "" {
			t.Errorf("%v: stderr %q", tc.env, r.Err)
		}
	}
	if len(cli.EnvNames()) != 5 {
		t.Error("a global flag has no variable")
	}
}

func TestColoursAreForTerminalsThatWantThem(t *testing.T) {
	host := serve(t, fakevpnd.New())
	for _, tc := range []struct {
		name string
		tty  bool
		env  map[string]string
		args []string
		want bool
	}{
		{"terminal", true, nil, nil, true},
		{"pipe", false, nil, nil, false},
		{"NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, nil, false},
		{"dumb terminal", true, map[string]string{"TERM": "dumb"}, nil, false},
		{"--no-color", true, nil, []string{"--no-color"}, false},
	} {
		r := cli.Terminal{Host: host, TTY: tc.tty, Width: 80, Height: 24, Env: tc.env, Now: fakevpnd.Now()}.
			Run(t.Context(), append([]string{"status"}, tc.args...)...)
		if got := strings.Contains(r.Out, "\x1b["); got != tc.want {
			t.Errorf("%s: colours %v, want %v", tc.name, got, tc.want)
		}
	}
}

// screen collects what a command prints while it runs.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *screen) shows(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(s.String(), want) {
			return
		}
	}
	t.Fatalf("%q was not printed within 10 s:\n%s", want, s)
}

// background runs a command until the test ends or interrupts it.
func background(t *testing.T, term cli.Terminal, args ...string) (out *screen, interrupt func() cli.Result) {
	t.Helper()
	out = &screen{}
	term.Out = out
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan cli.Result, 1)
	go func() { done <- term.Run(ctx, args...) }()
	var once sync.Once
	var r cli.Result
	interrupt = func() cli.Result {
		cancel()
		once.Do(func() { r = <-done })
		return r
	}
	t.Cleanup(func() { interrupt() })
	return out, interrupt
}

func TestWatchAppendsWhatChangedOffATerminal(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	term.TTY = false
	out, interrupt := background(t, term, "user", "list", "-w", "-o", "jsonl")
	out.shows(t, `"carol"`)
	w.Do(func(w *fakevpnd.World) { w.Users[1].Status = users.Active })
	out.shows(t, `"username":"bob","status":"active"`)
	r := interrupt()
	if n := strings.Count(out.String(), "\n"); n != 4 || r.Status != 130 {
		t.Errorf("%d lines, want 4; exit status %d, want 130\n%s", n, r.Status, out)
	}
}

func TestWatchRepaintsATerminalOnChangeOnly(t *testing.T) {
	w := fakevpnd.New()
	out, interrupt := background(t, terminal(t, w), "session", "list", "-w")
	out.shows(t, "alice/phone")
	w.Do(func(w *fakevpnd.World) {
		w.Sessions[1].State = sessions.Online
		w.Events = append(w.Events, events.Event{ID: "evt_9", Type: "session.recovered", Time: fakevpnd.Now()})
	})
	out.shows(t, "alice/phone   ● online")
	r := interrupt()
	if n := strings.Count(out.String(), "\x1b[H"); n != 2 || r.Status != 130 {
		t.Errorf("painted %d times, want 2; exit status %d", n, r.Status)
	}
	if !strings.Contains(out.String(), "\x1b[?1049l") || !strings.HasSuffix(strings.TrimSpace(out.String()), "0 B") {
		t.Errorf("the terminal is not as it was: %q", out.String()[max(0, out.b.Len()-200):])
	}
}

func TestEventsAreFollowedAcrossARestart(t *testing.T) {
	dir, err := os.MkdirTemp("", "vpnctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	w := fakevpnd.New()
	stop, err := start(w, path)
	if err != nil {
		t.Fatal(err)
	}
	out, interrupt := background(t, cli.Terminal{Host: "unix://" + path, Now: fakevpnd.Now()}, "events", "-f", "--since", "1d", "-o", "jsonl")
	out.shows(t, "evt_3")
	stop()
	w.Do(func(w *fakevpnd.World) {
		w.Events = append(w.Events, events.Event{ID: "evt_4", Type: "user.created", Time: fakevpnd.Now().Add(time.Minute)})
	})
	stop, err = start(w, path)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	out.shows(t, "evt_4")
	if r := interrupt(); r.Status != 130 {
		t.Errorf("exit status %d", r.Status)
	}
	for _, id := range []string{"evt_1", "evt_2", "evt_3", "evt_4"} {
		if n := strings.Count(out.String(), id); n != 1 {
			t.Errorf("%s was told %d times", id, n)
		}
	}
}

func TestWaitingEndsWhenTheStateIsThere(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	term.TTY, term.Now = false, time.Time{}
	out, interrupt := background(t, term, "wait", "session/alice/phone=closed", "user/bob=active", "-o", "name")
	w.Do(func(w *fakevpnd.World) { w.Sessions = w.Sessions[:1] })
	w.Do(func(w *fakevpnd.World) { w.Users[1].Status = users.Active })
	out.shows(t, "session/alice/phone\nuser/bob\n")
	if r := interrupt(); r.Status != 0 {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
}

func TestWaitingForVpndToCome(t *testing.T) {
	dir, err := os.MkdirTemp("", "vpnctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	out, interrupt := background(t, cli.Terminal{Host: "unix://" + path}, "wait", "vpnd=ready")
	stop, err := start(fakevpnd.New(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	out.shows(t, "vpnd\tready")
	if r := interrupt(); r.Status != 0 {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
	r := cli.Terminal{Host: "unix://" + path + ".not"}.Run(t.Context(), "wait", "vpnd=ready", "--timeout", "300ms")
	if r.Status != 8 || !strings.Contains(r.Err, "vpnd does not run") {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
}

func TestCompletionIsQuickAndSilent(t *testing.T) {
	w := fakevpnd.New()
	host := serve(t, w)
	ask := func(args ...string) cli.Result {
		return cli.Terminal{Host: "x", Env: map[string]string{}}.Run(t.Context(), append([]string{"__complete", "--host", host}, args...)...)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"user", "get", "al"}, "alice\tactive\n:4\n"},
		{[]string{"user", "suspend", "alice", ""}, "bob\tsuspended\ncarol\tactive\n:4\n"},
		{[]string{"device", "get", "alice/l"}, "alice/laptop\tlinux\n:4\n"},
		{[]string{"session", "kill", "carol/"}, "carol/ノート\tonline\n:4\n"},
		{[]string{"service", "restart", "k"}, "keys\tready\n:4\n"},
		{[]string{"user", "delete", "--accept-risk", ""}, "drop-sessions\ndestroy-data\nlock-out\nopen-lane\n:4\n"},
		{[]string{"user", "list", "-o", ""}, "table\nwide\njson\njsonl\nyaml\nname\n:4\n"},
		{[]string{"wait", "session/c"}, "session/carol/ノート=online\n:4\n"},
		{[]string{"session", "list", "--user", "b"}, "bob\tsuspended\n:4\n"},
		{[]string{"completion", "z"}, "zsh\n:4\n"},
		{[]string{"tor", "circuit", "close", "13", ""}, "12\tbuilt, 2 streams\n14\tbuilding, no streams\n:4\n"},
		{[]string{"tor", "bridge", "test", "9b1"}, "9b11e0c4d7aa\t192.0.2.8:9001 " + strings.Repeat("B2", 20) + "\n:4\n"},
		{[]string{"tor", "isolation", "set", ""}, "device\ndestination\n:4\n"},
		{[]string{"lane", "down", "v"}, "vpn\tup\n:4\n"},
	} {
		if r := ask(tc.args...); r.Out != tc.want {
			t.Errorf("%v: got %q, want %q", tc.args, r.Out, tc.want)
		}
	}
	w.Do(func(w *fakevpnd.World) { w.Delay = 5 * time.Second })
	began := time.Now()
	r := ask("user", "get", "")
	if took := time.Since(began); took > 2*time.Second || r.Out != ":4\n" {
		t.Errorf("a vpnd that hangs: %v, %q", took, r.Out)
	}
	host = "unix:///nowhere/at/all"
	if r := ask("user", "get", ""); r.Out != ":4\n" || strings.Contains(r.Err, "rror") {
		t.Errorf("without vpnd: %q, %q", r.Out, r.Err)
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := cli.Terminal{}.Run(t.Context(), "completion", shell)
		if r.Status != 0 || !strings.Contains(r.Out, "vpnctl") {
			t.Errorf("%s: exit status %d, %d bytes", shell, r.Status, len(r.Out))
		}
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	cmd := exec.Command(bash, "-n")
	cmd.Stdin = strings.NewReader(cli.Terminal{}.Run(t.Context(), "completion", "bash").Out)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("bash does not understand it: %v\n%s", err, out)
	}
}

func TestSinceTakesWhatPeopleWrite(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"90s": now.Add(-90 * time.Second), "1h30m": now.Add(-90 * time.Minute), "7d": now.AddDate(0, 0, -7),
		"2026-01-31": time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), "2026-01-31T10:00:00+02:00": time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC),
		"2026-01-31 10:00": time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := cli.ParseSince(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "-5m", "-1d", "99999999d", "2026-13-01"} {
		if _, err := cli.ParseSince(in, now); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzArgumentsNeverCrash(f *testing.F) {
	for _, s := range []string{"7d", "vpnd=ready", "session/a=online", "=", "/=", "lane/=up"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = cli.ParseSince(s, time.Unix(0, 0))
		_ = cli.ParseTarget(s)
		if u, err := url.Parse("ssh://" + s); err == nil {
			_, _ = cli.SSHCommand(u)
		}
	})
}

func TestTargetsOfWait(t *testing.T) {
	for _, s := range []string{"vpnd=ready", "service/auth=ready", "session/alice/laptop=closed", "lane/vpn=up", "tor=up", "lane/tor=maintenance", "user/a=b=active"} {
		if err := cli.ParseTarget(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "vpnd", "vpnd=up", "vpnd/x=ready", "service=ready", "service/=ready", "tor=ready", "tor/x=up", "user/alice=online"} {
		if err := cli.ParseTarget(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want invalid", s, err)
		}
	}
}

// The attack: an address that ssh or the shell over there would take for
// something else.
func TestSSHAddressesCannotSmuggleOptions(t *testing.T) {
	for addr, want := range map[string]string{
		"ssh://root@vps":                   "ssh -T -l root -- vps vpnctl proxy",
		"ssh://vps:2222":                   "ssh -T -p 2222 -- vps vpnctl proxy",
		"ssh://root@vps/run/x/c.sock":      "ssh -T -l root -- vps vpnctl --host unix:///run/x/c.sock proxy",
		"ssh://-oProxyCommand=id":          "",
		"ssh://-oProxyCommand=id@vps":      "",
		"ssh://root@vps/run/$(id)":         "",
		"ssh://root@vps/run/a;reboot":      "",
		"ssh://root:secret@vps":            "",
		"ssh://":                           "",
		"ssh://root@vps/run/with%20spaces": "",
	} {
		u, err := url.Parse(addr)
		if err != nil {
			t.Fatal(err)
		}
		argv, why := cli.SSHCommand(u)
		if got := strings.Join(argv, " "); got != want || (why == "") != (want != "") {
			t.Errorf("%s: got %q (%s), want %q", addr, got, why, want)
		}
	}
}

func TestTheWholeCommandLineOverSSH(t *testing.T) {
	host := serve(t, fakevpnd.New())
	socket := strings.TrimPrefix(host, "unix://")
	dir := t.TempDir()
	// An ssh that logs in here: it drops the options and runs the command.
	script := "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH")) // testscript has put vpnctl there
	if _, err := exec.LookPath("vpnctl"); err != nil {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(self, filepath.Join(dir, "vpnctl")); err != nil {
			t.Fatal(err)
		}
	}
	term := cli.Terminal{Host: "ssh://root@example" + socket}
	r := term.Run(t.Context(), "user", "list", "-o", "name")
	if r.Status != 0 || r.Out != "alice\nbob\ncarol\n" {
		t.Errorf("exit status %d, stdout %q, stderr %q", r.Status, r.Out, r.Err)
	}
}

func TestJSONForTerminalsMeansTheSame(t *testing.T) {
	in := map[string]string{"a": "\u009b31m \u202e <b> & 日本 \U000e0041 🙂 \u007f"}
	data, err := cli.JSONText(in, true)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(data, &back); err != nil || back["a"] != in["a"] {
		t.Errorf("%s became %q, %v", data, back, err)
	}
	if bytes.ContainsAny(data, "\u009b\u202e\u007f\U000e0041") || !bytes.Contains(data, []byte("<b> & 日本")) {
		t.Errorf("printed %s", data)
	}
	y, err := cli.YAMLText(map[string]any{"s": "true", "n": 12345678901234, "e": "", "esc": "\x1b[1m", "list": []string{}, "t": "2026-03-14"})
	if err != nil {
		t.Fatal(err)
	}
	want := "e: \"\"\nesc: \"\\e[1m\"\nlist: []\nn: 12345678901234\ns: \"true\"\nt: \"2026-03-14\"\n"
	if string(y) != want {
		t.Errorf("got %s\nwant %s", y, want)
	}
}
