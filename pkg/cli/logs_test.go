package cli_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
	"vpnd/pkg/logquery"
	"vpnd/pkg/view"
)

func TestLogsInEveryOutput(t *testing.T) {
	for _, output := range append(cli.Outputs(), "raw") {
		for _, tty := range []bool{false, true} {
			for _, args := range []string{"logs", "logs -n 0", "service logs auth", "logs saved run refused"} {
				term := terminal(t, fakevpnd.New())
				term.TTY = tty
				r := term.Run(t.Context(), append(strings.Fields(args), "-o", output)...)
				if r.Status != 0 || r.Err != "" {
					t.Errorf("%s -o %s: exit status %d: %s", args, output, r.Status, r.Err)
				}
				check(t, "logs", strings.Replace(output, "raw", "jsonl", 1), r)
				if strings.ContainsAny(r.Out, "\x1b\x07\u202e") {
					t.Errorf("%s -o %s: the terminal would obey this: %.300q", args, output, r.Out)
				}
			}
		}
	}
	term := terminal(t, fakevpnd.New())
	golden(t, "logs.json", term.Run(t.Context(), "logs", "-o", "json").Out)
	golden(t, "logs.raw", term.Run(t.Context(), "logs", "-o", "raw").Out)
	golden(t, "logs_wide.txt", term.Run(t.Context(), "logs", "-o", "wide").Out)
	term.TTY = false
	golden(t, "logs.tsv", term.Run(t.Context(), "logs").Out)
	if r := term.Run(t.Context(), "user", "list", "-o", "raw"); r.Status != 2 || strings.Contains(r.Err, ", raw") {
		t.Errorf("raw of something else: exit status %d: %s", r.Status, r.Err)
	}
}

func TestRawLinesAreWhatTheServiceWrote(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		w.Logs = []logs.Record{fakevpnd.LogLine("x", 0, "info", "auth", "e", "", "alice", `{"user":"eve","n":1.50,"big":12345678901234567890,"user":null,"a":[1,{"b":2}]}`)}
	})
	r := terminal(t, w).Run(t.Context(), "logs", "-o", "raw")
	want := `{"ts":"2026-03-14T15:09:26Z","level":"info","service":"auth","event":"e","user":"alice","fields.user":"eve","n":1.50,"big":12345678901234567890,"fields.fields.user":null,"a":[1,{"b":2}]}` + "\n"
	if r.Out != want {
		t.Errorf("got  %swant %s", r.Out, want)
	}
}

func TestNewestLinesAreAtTheBottom(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	for args, want := range map[string]string{
		"logs -n 2":                          "l-07 l-08",
		"logs -n 0 user=alice":               "l-01 l-06",
		"logs user=bob,carol level>=error":   "l-04 l-08",
		"logs service=auth refused":          "l-04",
		"logs --since 62m --until 20m":       "l-03 l-04 l-05 l-06",
		"logs --since 14:29 --until 14:45":   "l-05 l-06",
		"logs --since 2026-03-14 user=bob":   "l-02 l-04",
		"logs user=nobody":                   "",
		"service logs sessions --since 1h":   "l-06",
		"session logs alice/laptop":          "l-06",
		"user logs usr_bob level>=error":     "l-04",
		"user logs ghost":                    "",
		"logs saved run refused":             "l-04",
		"logs saved run slow since=62m":      "l-03",
		"logs -- count":                      "",
		"logs -n 9999999 service=gateway":    "l-05",
		"logs !user=* service=nginx,gateway": "l-05 l-07",
	} {
		r := term.Run(t.Context(), append([]string{"-o", "name"}, strings.Fields(args)...)...)
		if got := strings.Join(strings.Fields(r.Out), " "); r.Status != 0 || got != want {
			t.Errorf("%s: exit status %d, got %q, want %q; %s", args, r.Status, got, want, r.Err)
		}
	}
	if r := term.Run(t.Context(), "user", "logs", "ghost"); !strings.Contains(r.Err, `no user "ghost" now`) {
		t.Errorf("a deleted user: %s", r.Err)
	}
	if r := term.Run(t.Context(), "session", "logs", "nobody"); r.Status != 3 {
		t.Errorf("no session: exit status %d: %s", r.Status, r.Err)
	}
	if r := term.Run(t.Context(), "logs", "-n", "-1"); r.Status != 2 {
		t.Errorf("-n -1: exit status %d", r.Status)
	}
	if r := term.Run(t.Context(), "logs", "-n", "3"); !strings.Contains(r.Err, "only the newest 3 lines") {
		t.Errorf("nothing is said of older lines: %q", r.Err)
	}
}

// TestManyPages has more lines than one answer holds.
func TestManyPages(t *testing.T) {
	const n = 25_000
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		w.Logs = nil
		for range n {
			w.Logs = append(w.Logs, fakevpnd.LogLine("x", time.Minute, "info", "auth", "e", "", "", ""))
		}
	})
	term := terminal(t, w)
	term.TTY = false
	for args, want := range map[string]int{"-n 0": n, "-n 12000": 12_000, "": 100} {
		r := term.Run(t.Context(), append([]string{"logs", "-o", "name"}, strings.Fields(args)...)...)
		if got := strings.Count(r.Out, "\n"); got != want {
			t.Errorf("%s: %d lines, want %d", args, got, want)
		}
	}
}

func TestAMistakeInAQueryIsPointedAt(t *testing.T) {
	term := terminal(t, fakevpnd.New())
	for _, args := range []string{"logs", "logs count", "logs fields", "logs services", "logs top user", "logs stats --by user", "logs histogram", "logs export", "logs -f", "logs saved save x", "logs purge"} {
		r := term.Run(t.Context(), append(strings.Fields(args), "service=auth", "level>>warn")...)
		want := "error: the query is wrong at column 19: \">>\" is no comparison\n  service=auth level>>warn\n                    ^\nhint: write field=value"
		if r.Status != 2 || !strings.Contains(r.Err, want) {
			t.Errorf("%s: exit status %d:\n%s", args, r.Status, r.Err)
		}
	}
	r := term.Run(t.Context(), "service", "logs", "auth", "level>>warn", "-o", "json")
	if r.Status != 2 || !strings.Contains(r.Err, `"fields":[{"path":"query","message":"column 19: `) {
		t.Errorf("for programs: %s", r.Err)
	}
}

func TestTheMarkIsUnderTheColumn(t *testing.T) {
	for _, tc := range []struct {
		query  string
		column int
		width  int
	}{
		{"a>>b", 2, 40}, {"日本>>b", 3, 40}, {"\x1b[31m>>", 6, 40}, {"abc", 4, 40}, {"abc", 99, 40}, {"", 1, 40}, {"abc", 0, 40},
		{strings.Repeat("user=alice ", 6000) + "x>>y " + strings.Repeat("b ", 500), 66002, 40}, {strings.Repeat("日", 300), 200, 41},
	} {
		line, mark := cli.Caret(tc.query, tc.column, tc.width)
		if strings.ContainsAny(line, "\x1b\n") || view.Width(line) > tc.width || view.Width(mark) > tc.width+1 {
			t.Errorf("%.20q: %q %q", tc.query, line, mark)
		}
		runes := []rune(tc.query)
		if tc.column < 1 || tc.column > len(runes) {
			continue
		}
		before := 0 // bytes of line before the mark
		for view.Width(line[:before]) < view.Width(mark)-1 || !strings.HasPrefix(line[before:], view.Clean(string(runes[tc.column-1]))) {
			if before++; before >= len(line) {
				t.Errorf("%.20q: the mark is not under %q:\n%s\n%s", tc.query, runes[tc.column-1], line, mark)
				break
			}
		}
		if before < len(line) && view.Width(line[:before]) != view.Width(mark)-1 {
			t.Errorf("%.20q: the mark is beside:\n%s\n%s", tc.query, line, mark)
		}
	}
}

// TestFlagsAndNamesBecomeTermsOfTheLanguage asks the language itself.
func TestFlagsAndNamesBecomeTermsOfTheLanguage(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.FixedZone("", 2*3600))
	for in, want := range map[string]string{
		"1h": "2026-03-14T12:09:26Z", "7d": "2026-03-07T13:09:26Z", "15:04": "2026-03-14T13:04:00Z", "today": "2026-03-13T22:00:00Z",
		"yesterday": "2026-03-12T22:00:00Z", "2026-01-31": "2026-01-30T22:00:00Z", "2026-01-31 10:00": "2026-01-31T08:00:00Z",
		"2026-01-31T10:00:00+01:00": "2026-01-31T09:00:00Z", "now": "2026-03-14T13:09:26Z",
	} {
		q, err := logquery.Parse("since="+cli.LogsTime(in, now), now)
		if err != nil || q.Since.Format(time.RFC3339) != want {
			t.Errorf("%s became %s: %v, %v; want %s", in, cli.LogsTime(in, now), q.Since, err, want)
		}
	}
	for _, name := range []string{"alice", "a b", `a"b\c`, "a,b", "a*", "-x", "!x", "é日", "a=b", "tab\t\n\r", "usr_1", "ノート"} {
		q, err := logquery.Parse("user="+cli.LogsValue(name), now)
		if err != nil || len(q.Terms) != 1 || !slices.Equal(q.Terms[0].Values, []string{name}) || slices.Contains(q.Terms[0].Prefix, true) {
			t.Errorf("%q became %s: %+v, %v", name, cli.LogsValue(name), q, err)
		}
	}
}

func TestLogsAreFollowedAcrossARestart(t *testing.T) {
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
	say := func(id, user string, missed uint64) {
		w.Do(func(w *fakevpnd.World) {
			r := fakevpnd.LogLine(id, 0, "info", "auth", "e", "", user, "")
			r.Missed = missed
			w.Logs = append(w.Logs, r)
		})
	}
	term := cli.Terminal{Host: "unix://" + path, Now: fakevpnd.Now()}
	all, interrupt := background(t, term, "logs", "-f", "-n", "2", "-o", "jsonl")
	none, interruptNone := background(t, term, "logs", "-f", "user=dora", "-o", "raw")
	all.shows(t, "l-08")
	say("n-1", "dora", 0)
	all.shows(t, "n-1")
	none.shows(t, "dora")
	stop()
	say("n-2", "dora", 7) // while vpnd is away
	say("n-3", "erin", 0)
	if stop, err = start(w, path); err != nil {
		t.Fatal(err)
	}
	defer stop()
	all.shows(t, "n-3")
	all.shows(t, `"missed":7`)
	say("n-4", "dora", 0)
	all.shows(t, "n-4")
	none.shows(t, "dora\"}\n{\"ts\":\"2026-03-14T15:09:26Z\",\"level\":\"info\",\"service\":\"auth\",\"event\":\"e\",\"user\":\"dora\"}\n{")
	r, rn := interrupt(), interruptNone()
	var got []string
	for line := range strings.Lines(all.String()) {
		var v logs.Record
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Error(err)
		}
		got = append(got, v.ID)
	}
	if want := []string{"l-07", "l-08", "n-1", "n-2", "n-3", "n-4"}; !slices.Equal(got, want) || r.Status != 130 {
		t.Errorf("got %v, want %v; exit status %d", got, want, r.Status)
	}
	if n := strings.Count(none.String(), "\n"); n != 3 || !strings.Contains(rn.Err, "7 lines were missed here") || !strings.Contains(rn.Err, "vpnd is back") {
		t.Errorf("%d lines of dora, want 3; %q", n, rn.Err)
	}
}

func TestHistogramForScriptsAndNarrowTerminals(t *testing.T) {
	term := terminal(t, fakevpnd.New())
	for _, tc := range []struct{ name, args string }{
		{"logs_histogram_service.txt", "logs histogram --by service --bucket 1h --since 2026-03-14"},
		{"logs_histogram_plain.txt", "logs histogram --bucket 12h"},
		{"logs_histogram_day.txt", "logs histogram --bucket 1d"},
	} {
		r := term.Run(t.Context(), strings.Fields(tc.args)...)
		golden(t, tc.name, r.Out)
		for line := range strings.Lines(r.Out) {
			if n := width(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%d cells: %s", n, line)
			}
		}
	}
	term.Env = map[string]string{"LANG": "C", "NO_COLOR": "1"}
	r := term.Run(t.Context(), "logs", "histogram", "--by", "level", "--bucket", "1d")
	if strings.ContainsFunc(r.Out, func(c rune) bool { return c > 0x7f }) || !strings.Contains(r.Out, "# fatal") {
		t.Errorf("in a locale without UTF-8:\n%s", r.Out)
	}
	term.TTY = false
	for args, want := range map[string]string{
		"--bucket 1d":                          "2026-03-13T00:00:00Z\t1\n2026-03-14T00:00:00Z\t7\n",
		"--bucket 1d --by user user=bob,alice": "2026-03-13T00:00:00Z\talice\t1\n2026-03-14T00:00:00Z\talice\t1\n2026-03-14T00:00:00Z\tbob\t2\n",
		"user=nobody":                          "",
	} {
		if r := term.Run(t.Context(), append([]string{"logs", "histogram"}, strings.Fields(args)...)...); r.Out != want || r.Status != 0 {
			t.Errorf("%s: got %q, want %q; %s", args, r.Out, want, r.Err)
		}
	}
}

func TestPurgeAsks(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		tty      bool
		args     []string
		status   int
		says     string
		left     int
	}{
		{"nothing is not everything", "purge\n", true, []string{"--accept-risk=destroy-data"}, 2, "nothing never means everything", 8},
		{"spaces are nothing", "", true, []string{"  ", `""`, "--accept-risk=destroy-data"}, 2, "nothing never means everything", 8},
		{"script", "purge\n", false, []string{"user=carol"}, 6, "--accept-risk=destroy-data", 8},
		{"-y is not for risks", "", false, []string{"user=carol", "-y"}, 6, "--accept-risk=destroy-data", 8},
		{"typed", "purge\n", true, []string{"user=carol"}, 0, "2026-03-14  2 lines\n▲ destroy-data: removes 2 log lines of 1 day for good\nTo purge 2 log lines, type purge: ", 6},
		{"not typed", "yes\n", true, []string{"user=carol"}, 6, "nothing was changed", 8},
		{"accepted", "", false, []string{"user=carol", "--accept-risk=destroy-data"}, 0, "2 lines removed", 6},
		{"dry run", "", false, []string{"user=carol", "--dry-run"}, 10, "2 lines would be removed", 8},
		{"dry run of nothing", "", false, []string{"user=nobody", "--dry-run"}, 0, "no lines would be removed", 8},
		{"nothing matches", "", false, []string{"user=nobody"}, 0, "no lines removed", 8},
		{"until", "", false, []string{"--until", "2h", "--accept-risk=destroy-data"}, 0, "2 lines removed", 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := fakevpnd.New()
			term := terminal(t, w)
			term.In, term.TTY = tc.in, tc.tty
			r := term.Run(t.Context(), append([]string{"logs", "purge"}, tc.args...)...)
			if r.Status != tc.status || !strings.Contains(r.Err, tc.says) {
				t.Errorf("exit status %d, want %d; stderr %q, want %q in it", r.Status, tc.status, r.Err, tc.says)
			}
			w.Do(func(w *fakevpnd.World) {
				if len(w.Logs) != tc.left {
					t.Errorf("%d lines are left, want %d", len(w.Logs), tc.left)
				}
			})
		})
	}
}

func TestSavedQueries(t *testing.T) {
	w := fakevpnd.New()
	term := terminal(t, w)
	term.TTY = false
	for _, tc := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"save", "mine", `user=alice "signed in"`}, 0, "mine\tuser=alice \"signed in\""},
		{[]string{"save", "mine", "user=bob"}, 0, "mine\tuser=bob"},
		{[]string{"save", "../etc", "user=bob"}, 2, "error: \"../etc\" is no name for a saved query\nhint: a name is up to 64 letters, digits, _ . and -"},
		{[]string{"run", "a/b"}, 2, "error: \"a/b\" is no name for a saved query\n"},
		{[]string{"save", "\x1b[31m", "user=bob"}, 2, `error: "\x1b[31m" is no name`},
		{[]string{"save", "mine"}, 2, "a name and a query are needed"},
		{[]string{"run", "mine"}, 0, "sign-in refused"},
		{[]string{"run", "other"}, 3, `there is no saved query "other"`},
		{[]string{"delete", "mine"}, 6, "add -y"},
		{[]string{"delete", "mine", "--dry-run"}, 10, "saved query mine"},
		{[]string{"delete", "mine", "-y"}, 0, "saved query mine deleted"},
		{[]string{"delete", "mine", "-y"}, 3, "no saved query"},
		{[]string{"delete", "mine", "-y", "--if-exists"}, 0, "nothing to do"},
	} {
		if r := term.Run(t.Context(), append([]string{"logs", "saved"}, tc.args...)...); r.Status != tc.status || !strings.Contains(r.Out+r.Err, tc.says) {
			t.Errorf("%v: exit status %d, want %d: %s%s", tc.args, r.Status, tc.status, r.Out, r.Err)
		}
	}
}

func TestStatusOfLogsNamesEveryProblem(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		s := &w.LogStatus
		s.Problems = []logs.Problem{
			{What: "lines are not taken in: the disk that holds /var/lib/vpnd/logs/days is full; nothing was lost", Hint: "free space at /var/lib/vpnd/logs/days, or lower logs.max_size_mib"},
			{What: "/var/log/x cannot be read: permission denied", Hint: "let the account of service logs read it, or take it out of logs.dirs"},
		}
		s.Problem, s.Hint, s.MoreSkipped = s.Problems[0].What, s.Problems[0].Hint, 3
		s.Days = append(s.Days, logs.Day{Day: "2026-03-12", Damaged: "its file was set aside as 2026-03-12.db.damaged"})
		s.PausedMs, s.SlowQueries, s.LagMs, s.Files[1].LagMs = 95_000, 4, 95_000, 95_000
	})
	golden(t, "logs_status_trouble.txt", terminal(t, w).Run(t.Context(), "logs", "status").Out)
}

func TestStoppingLogsSaysWhatThatMeans(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		s := w.Services[0]
		s.Name = "logs"
		w.Services = append(w.Services, s)
	})
	term := terminal(t, w)
	const says = "lines wait in their files"
	if r := term.Run(t.Context(), "service", "stop", "logs", "--dry-run"); r.Status != 10 || !strings.Contains(r.Out+r.Err, says) {
		t.Errorf("dry run: exit status %d: %s%s", r.Status, r.Out, r.Err)
	}
	if r := term.Run(t.Context(), "service", "stop", "logs"); r.Status != 0 || !strings.Contains(r.Err, "logs: "+says) {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
	if r := term.Run(t.Context(), "service", "stop", "auth"); r.Status != 0 || r.Err != "" {
		t.Errorf("of another service: exit status %d: %s", r.Status, r.Err)
	}
}

func TestCompletionOfQueries(t *testing.T) {
	w := fakevpnd.New()
	host := serve(t, w)
	ask := func(args ...string) string {
		return cli.Terminal{Host: "x"}.Run(t.Context(), append([]string{"__complete", "--host", host}, args...)...).Out
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"logs", "user=alice", "se"}, "service=\t7 lines\nsession=\t1 line\n:6\n"},
		{[]string{"logs", "service=a"}, "service=auth\t2 lines\nservice=a-service-with-a-long-name\t1 line\n:4\n"},
		{[]string{"logs", "level>=w"}, "level>=warn\n:4\n"},
		{[]string{"logs", "stats", "--by", "lev"}, "level\t6 lines\n:4\n"},
		{[]string{"logs", "top", "rem"}, "remote\t2 lines\n:4\n"},
		{[]string{"logs", "top", "remote", "tri"}, "tries=\t1 line\n:6\n"},
		{[]string{"logs", "saved", "run", "r"}, "refused\tservice=auth level>=warn \"sign-in refused\"\n:4\n"},
		{[]string{"service", "logs", "g"}, "gateway\t1 line\n:4\n"},
		{[]string{"session", "logs", "carol/"}, "carol/ノート\tonline\n:4\n"},
		{[]string{"user", "logs", "bob", "ev"}, "event=\t5 lines\n:6\n"},
		{[]string{"logs", "export", "--format", ""}, "jsonl\ncsv\n:4\n"},
	} {
		if got := ask(tc.args...); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.args, got, tc.want)
		}
	}
	w.Do(func(w *fakevpnd.World) { w.Delay = 5 * time.Second })
	began := time.Now()
	if out := ask("logs", "us"); time.Since(began) > 2*time.Second || out != ":4\n" {
		t.Errorf("a vpnd that hangs: %v, %q", time.Since(began), out)
	}
}

func TestYAMLForTerminalsMeansTheSame(t *testing.T) {
	in := map[string]string{"a": "\x1b]0;x\a \u009b31m \u202e \u0085 \u2028 \ufeff 日本 \U000e0041 🙂 \u007f \\u202e \ufffd", "\u202ekey": "plain"}
	data, err := cli.YAMLText(in)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := yaml.Unmarshal(data, &back); err != nil || !maps.Equal(back, in) {
		t.Errorf("%s became %q, %v", data, back, err)
	}
	if bytes.ContainsAny(data, "\x1b\a\u009b\u202e\u0085\u2028\ufeff\u007f\U000e0041") || !bytes.Contains(data, []byte("日本")) {
		t.Errorf("printed %q", data)
	}
}

// What a line has as it was written is printed all the same.
func TestYAMLOfAnyJSON(t *testing.T) {
	raw := `{"emoji":"\ud83d\ude00","half":"\ud83d","big":123456789012345678901234567890,"f":1.50,"e":1e5,"t":true,"n":null,"s":"true","y":"yes","d":"2026-03-14","list":[[],{},"- a",""],"multi":"a\nb: c","-":"#"}`
	data, err := cli.YAMLText(json.RawMessage(raw))
	if err != nil {
		t.Fatal(err)
	}
	want := "emoji: \"\\U0001F600\"\nhalf: \ufffd\nbig: 123456789012345678901234567890\nf: 1.50\ne: 1e5\nt: true\nn: null\ns: \"true\"\n" +
		"y: yes\nd: \"2026-03-14\"\nlist:\n  - []\n  - {}\n  - '- a'\n  - \"\"\nmulti: \"a\\nb: c\"\n'-': '#'\n"
	if strings.ReplaceAll(string(data), "😀", `"\U0001F600"`) != want {
		t.Errorf("got\n%s\nwant\n%s", data, want)
	}
}
