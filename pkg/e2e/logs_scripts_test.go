//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/control"
	"vpnd/pkg/lab"
)

// sh runs a shell command on the server.
func (w *logsWorld) sh(command string) said {
	w.t.Helper()
	return w.on("sh", "-c", command)
}

func TestLogsScripts(t *testing.T) {
	w := newLogsWorld(t, 0, func() error { return os.MkdirAll("/var/log/other/deep/er", 0o755) }, "/var/log/other", "/var/log/vpnd")
	now := time.Now().UTC()
	var b strings.Builder
	for i := range 500 {
		level := []string{"debug", "info", "warn", "error"}[i%4]
		fmt.Fprintf(&b, `{"ts":%q,"level":%q,"service":"shop","user":"u%d","event":"sale","message":"sold =SUM(A%d)","n":%d}`+"\n",
			now.Add(-time.Duration(500-i)*time.Second).Format(time.RFC3339Nano), level, i%7, i, i)
	}
	w.write(appLogs+"/shop.log", b.String())
	w.counts("service=shop", 500, 15*time.Second)

	t.Run("pipes", func(t *testing.T) {
		w := w.in(t)
		s := w.sh(`vpnctl logs 'service=shop level>=warn since=1h' -n 0 -o jsonl | jq -r .fields.n | sort -n | uniq -c | awk '$1 == 1' | wc -l`)
		if strings.TrimSpace(s.out) != "250" {
			t.Errorf("jq sees %s", s)
		}
		warn := w.vpnctl(0, "logs", "service=shop level>=warn since=1h", "-o", "jsonl", "-n", "1000").records(t)
		for i, r := range warn {
			if r.Level != "warn" && r.Level != "error" || i > 0 && r.Time.Before(warn[i-1].Time) {
				t.Fatalf("line %d is %+v", i, r)
			}
		}
		if len(warn) != 250 {
			t.Errorf("%d lines, want 250", len(warn))
		}
		for _, cmd := range []string{"logs -n 0", "logs -n 0 -o jsonl", "logs export", "logs export --format csv"} {
			s := w.sh("vpnctl " + cmd + " service=shop 2>/run/e2e.err | head -1 >/dev/null; cat /run/e2e.err")
			if strings.Contains(s.out, "panic") || strings.Contains(s.out, "broken pipe") || s.status != 0 {
				t.Errorf("vpnctl %s | head -1: %s", cmd, s)
			}
		}
		if s := w.vpnctl(0, "logs", "service=shop", "-o", "raw", "-n", "2"); strings.Count(s.out, "\n") != 2 {
			t.Errorf("two raw lines: %s", s)
		} else {
			for line := range strings.Lines(s.out) {
				var o map[string]any
				if err := json.Unmarshal([]byte(line), &o); err != nil || o["event"] != "sale" || o["n"] == nil {
					t.Errorf("raw line %s: %v", line, err)
				}
			}
		}
		if s := w.vpnctl(0, "logs", "export", "--format", "csv", "service=shop"); strings.Contains(s.out, ",=") || strings.Contains(s.out, "\n=") {
			t.Errorf("a spreadsheet would run: %s", s)
		}
		if s := w.vpnctl(0, "logs", "service=nobody"); s.out != "" {
			t.Errorf("no line matches: %s", s)
		}
		if s := w.vpnctl(0, "logs", "count", "service=nobody"); strings.TrimSpace(s.out) != "0" {
			t.Errorf("no line matches: %s", s)
		}
	})

	t.Run("exit codes and columns", func(t *testing.T) {
		w := w.in(t)
		for query, says := range map[string]string{
			"user = alice":        "column 6",
			"level=loud":          "column 7",
			`"sign-in`:            "column 1",
			"service=shop a*b":    "column 15",
			"since=1h until=2h":   "column 16",
			"service=shop ... x":  "column 14",
			"é日 dur_ms>slow":      "column 11",
			"\x1b[31m level=loud": "column",
		} {
			for _, cmd := range [][]string{{}, {"count"}, {"export"}, {"-f"}, {"stats", "--by", "level"}, {"purge", "--dry-run"}} {
				s := w.vpnctl(2, append(append([]string{"logs"}, cmd...), query)...)
				if !strings.Contains(s.err, says) || s.out != "" || strings.Contains(s.err, "\x1b") {
					t.Errorf("vpnctl logs %s %q does not point at %s: %s", cmd, query, says, s)
				}
			}
		}
		var problem struct{ Error struct{ Code string } }
		s := w.vpnctl(2, "logs", "level=loud", "-o", "json")
		if err := json.Unmarshal([]byte(s.err), &problem); err != nil || problem.Error.Code != "invalid" {
			t.Errorf("a mistake for a program: %v, %s", err, s)
		}
		if s := w.vpnctl(2, "logs", strings.Repeat("word ", 300)); !strings.Contains(s.err, "more than 256 terms") || !strings.Contains(s.err, "column 1281") {
			t.Errorf("300 terms: %s", s)
		}
		mib := []string{} // one argument may not be so long
		for range 16 {
			mib = append(mib, "x"+strings.Repeat("y", 64<<10-1))
		}
		for what, words := range map[string][]string{"10,000 terms": slices.Repeat([]string{"word"}, 10_000), "1 MiB": mib} {
			for _, cmd := range [][]string{{}, {"count"}, {"-f"}, {"export"}, {"purge", "--dry-run"}, {"saved", "save", "long"}} {
				s := w.vpnctl(2, append(append([]string{"logs"}, cmd...), words...)...)
				if !strings.Contains(s.err, "too long") || len(s.err) > 1000 {
					t.Errorf("vpnctl logs %s with %s: %s", strings.Join(cmd, " "), what, s)
				}
			}
		}
		values := "user=" + strings.TrimSuffix(strings.Repeat("a,", 1001), ",")
		if s := w.vpnctl(2, "logs", values); !strings.Contains(s.err, "1000") {
			t.Errorf("1001 values: %s", s)
		}
		w.vpnctl(0, "logs", `user="'; DROP TABLE mini; --"`)
		w.vpnctl(0, "logs", "count", `"a \"b"=x`)
		w.vpnctl(0, "logs", "top", `"'`)
		w.vpnctl(0, "logs", "stats", "--by", `a'b,c;d`)
	})

	t.Run("export", func(t *testing.T) {
		w := w.in(t)
		w.vpnctl(0, "logs", "export", "service=shop", "--out", "/run/sales.jsonl")
		if b, err := os.ReadFile(w.at("/run/sales.jsonl")); err != nil || strings.Count(string(b), "\n") != 500 {
			t.Errorf("export --out: %d lines, %v", strings.Count(string(b), "\n"), err)
		}
		w.vpnctl(5, "logs", "export", "service=shop", "--out", "/run/sales.jsonl") // it exists
		if err := w.Machine(lab.Server).Do(func() error { return os.Symlink("/var/log/other/deep", "/var/lib/innocent") }); err != nil {
			t.Fatal(err)
		}
		before, _ := w.count("")
		for _, path := range []string{
			appLogs + "/x.jsonl", appLogs + "/x.csv", appLogs + "/../app/x.jsonl", "/var/log/vpnd/x.jsonl", "/var/log/vpnd/auth/x.jsonl",
			"/var/log/other/x.jsonl", "/var/log/other/deep/er/x.log", "/var/lib/innocent/x.json",
		} {
			s := w.on("vpnctl", "logs", "export", "service=shop", "--out", path)
			if s.status != 2 || !strings.Contains(s.err, path) {
				t.Errorf("an export to %s, which is read for lines: %s", path, s)
			}
			if _, err := os.Stat(w.at(path)); err == nil {
				t.Errorf("%s was made", path)
				_ = os.Remove(w.at(path))
			}
		}
		if after, _ := w.count("service=shop"); after != 500 {
			t.Errorf("%d lines in all before the exports; of the shop there are %d now", before, after)
		}
	})

	t.Run("saved", func(t *testing.T) {
		w := w.in(t)
		w.vpnctl(0, "logs", "saved", "save", "bad-sales", "service=shop", "level>=error")
		w.vpnctl(2, "logs", "saved", "save", "a/b", "service=shop")
		w.vpnctl(2, "logs", "saved", "save", "../../x", "service=shop")
		w.vpnctl(2, "logs", "saved", "save", "wrong", "level=loud")
		if r := w.vpnctl(0, "logs", "saved", "run", "bad-sales", "-n", "1000", "-o", "jsonl").records(t); len(r) != 125 {
			t.Errorf("the saved query finds %d lines, want 125", len(r))
		}
		if r := w.vpnctl(0, "logs", "saved", "run", "bad-sales", "user=u3", "-n", "1000", "-o", "jsonl").records(t); len(r) == 0 || len(r) == 125 {
			t.Errorf("narrowed, it finds %d lines", len(r))
		}
		w.vpnctl(3, "logs", "saved", "run", "no-such")
		w.vpnctl(0, "service", "restart", "logs")
		if s := w.vpnctl(0, "logs", "saved", "list"); !strings.Contains(s.out, "bad-sales") || !strings.Contains(s.out, "2") {
			t.Errorf("saved queries after a restart: %s", s)
		}
		w.vpnctl(0, "logs", "saved", "delete", "bad-sales", "-y")
		w.vpnctl(3, "logs", "saved", "delete", "bad-sales", "-y")
	})

	t.Run("purge", func(t *testing.T) {
		w := w.in(t)
		all, err := w.count("")
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{}, {""}, {" "}, {`""`}, {"", ""}, {"\t\n"}} {
			s := w.on("vpnctl", append([]string{"logs", "purge", "--accept-risk=destroy-data", "-y"}, args...)...)
			if s.status != 2 {
				t.Errorf("purge %q: %s", args, s)
			}
		}
		for _, body := range []string{`{}`, `{"query":""}`, `{"query":" "}`, `{"query":"\t\n"}`, `{"query":null}`, `{"Query":"user=u1"}`, `{"filter":"user=u1"}`} {
			s := w.sh(`curl -s --unix-socket /run/vpnd/control.sock -X POST -H 'Content-Type: application/json' -d '` + body + `' -o /dev/null -w '%{http_code}' http://vpnd/v1/logs-purge`)
			if code := s.out; code < "400" || code >= "500" {
				t.Errorf("POST %s: %s", body, s)
			}
		}
		if n, _ := w.count("service=shop"); n != 500 {
			t.Fatalf("%d lines of the shop are left", n)
		}
		w.vpnctl(6, "logs", "purge", "service=shop", "user=u1") // nobody agreed
		s := w.vpnctl(10, "logs", "purge", "service=shop", "user=u1", "--dry-run", "-o", "json")
		var would struct {
			Rows int64
			Days []struct{ Day string }
		}
		if err := json.Unmarshal([]byte(s.out), &would); err != nil || would.Rows < 70 || len(would.Days) == 0 {
			t.Errorf("dry run: %v, %s", err, s)
		}
		if n, _ := w.count("service=shop"); n != 500 {
			t.Errorf("a dry run left %d lines", n)
		}
		w.vpnctl(0, "logs", "purge", "service=shop", "user=u1", "--accept-risk=destroy-data")
		if n, _ := w.count("service=shop"); n != 500-would.Rows {
			t.Errorf("%d lines are left, %d should have gone", n, would.Rows)
		}
		if n, _ := w.count("service!=shop"); n < all-500 {
			t.Errorf("lines of others went: %d of %d are left", n, all-500)
		}
		l, err := control.Audit.Call(t.Context(), w.conn, &control.AuditRequest{Limit: 100, Op: "logs.purge"})
		if err != nil {
			t.Fatal(err)
		}
		done := 0
		for _, e := range l.Items {
			if e.Result == "ok" {
				if done++; e.Who != "root" || !strings.Contains(e.Target, "service=shop user=u1") {
					t.Errorf("audited as %+v", e)
				}
			}
		}
		if done != 1 {
			t.Errorf("%d purges are in the audit trail, want 1: %+v", done, l.Items)
		}
		if s := w.vpnctl(0, "audit", "list", "--op", "logs"); !strings.Contains(s.out, "user=u1") {
			t.Errorf("vpnctl audit list: %s", s)
		}
	})
}

// in is w in a subtest.
func (w *logsWorld) in(t *testing.T) *logsWorld {
	c := *w
	c.world = &world{Site: w.Site, t: t, daemon: w.daemon}
	return &c
}
