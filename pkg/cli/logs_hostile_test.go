package cli_test

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/cli"
)

// obeyed is what a terminal, or a reader's eye, would follow: all control
// characters but the newline, and the overrides of direction.
func obeyed() string {
	var b strings.Builder
	for c := rune(0); c < 0x20; c++ {
		if c != '\n' {
			b.WriteRune(c)
		}
	}
	for c := rune(0x7f); c < 0xa0; c++ {
		b.WriteRune(c)
	}
	return b.String() + "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff"
}

// The attack: lines whose every part is written for the terminal of whoever
// reads them, or for a database, or for a browser.
func TestHostileLinesAreHarmless(t *testing.T) {
	r := newRealLogs(t)
	evil := "\x1b]0;owned\a\x1b[2J" + obeyed() + "end"
	lines := []string{evil, "'; DROP TABLE mini; --", "<script>alert(1)</script>", `"; rm -rf / #`, "$(reboot)", "%s%n", "../../etc/passwd"}
	for _, l := range lines {
		j, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		s := string(j)
		r.write("evil.log", `{"level":`+s+`,"service":`+s+`,"event":`+s+`,"message":`+s+`,"user":`+s+`,"device":`+s+`,"session":`+s+`,"request_id":`+s+`,`+s+`:`+s+`,"list":[`+s+`]}`)
	}
	r.write("plain.log", "\x1b[31mplain "+obeyed())
	r.waitFor("", int64(len(lines)+1))
	var saved logs.SaveRequest
	saved.Name, saved.Body.Query = "evil", "\""+strings.ReplaceAll(evil, "\x00", "")+"\""
	if _, err := logs.Save.Call(t.Context(), r.conn, &saved); err != nil {
		t.Fatal(err)
	}

	for _, args := range []string{
		"logs", "logs -n 0", "logs -f -n 20", "logs stats --by service,message", "logs top user", "logs top level", "logs fields", "logs services",
		"logs histogram --by event --bucket 1d", "logs saved list", "logs status", "logs purge end --dry-run", "logs export", "logs export --format csv",
		"service logs auth\x1b[2J", "user logs \x1b[2J", "logs \"\x1b[2J", "logs saved run \x1b[2J", "logs top \x1b[2J", "logs stats --by \x1b[2J,user\u202e", "logs histogram --bucket \x1b[2J",
	} {
		outputs := append(cli.Outputs(), "raw")
		if !strings.HasPrefix(args, "logs -") && args != "logs" {
			outputs = cli.Outputs()
		}
		for _, output := range outputs {
			for _, tty := range []bool{true, false} {
				if !tty && strings.Contains(args, "csv") {
					continue // a program gets CSV as it is
				}
				term := r.terminal
				term.TTY = tty
				words := append(strings.Split(args, " "), "-o", output)
				var got cli.Result
				if slices.Contains(words, "-f") {
					out, interrupt := background(t, term, words...)
					if output != "name" {
						out.shows(t, "etc/passwd")
					}
					got = interrupt()
					got.Out = out.String()
				} else {
					got = term.Run(t.Context(), words...)
				}
				text := got.Out + got.Err
				if tty {
					text = strings.ReplaceAll(text, "\r\x1b[K", "") // our own progress
				}
				text = strings.ReplaceAll(text, "\t", "")
				if at := strings.IndexAny(text, obeyed()); at >= 0 {
					t.Errorf("%q -o %s, terminal %v: the reader would obey this: %.80q", args, output, tty, text[max(0, at-20):])
				}
			}
		}
	}
	// Nothing of it is lost: programs get every character.
	got := r.terminal.Run(t.Context(), "logs", "-n", "0", "-o", "jsonl")
	seen := map[string]bool{}
	for line := range strings.Lines(got.Out) {
		var v logs.Record
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		seen[v.Message] = true
		if strings.Contains(v.Message, "DROP") {
			var fields map[string]any
			if err := json.Unmarshal(v.Fields, &fields); err != nil || fields[v.Message] != v.Message || v.User != v.Message || v.RequestID != v.Message {
				t.Errorf("%+v: %v", v, err)
			}
		}
	}
	for _, l := range lines[1:] {
		if !seen[l] {
			t.Errorf("%q is lost", l)
		}
	}
	// A terminal would not; a spreadsheet's reader gets newlines and quotes back.
	r.write("csv.log", `{"message":"two\nlines, \"quoted\"\r\nand =1","user":"a\"b"}`)
	r.waitFor("two", 1)
	got = r.terminal.Run(t.Context(), "logs", "export", "two", "--format", "csv")
	rows, err := csv.NewReader(strings.NewReader(got.Out)).ReadAll()
	// encoding/csv reads \r\n in a cell as \n.
	if err != nil || len(rows) != 2 || rows[1][5] != "two\nlines, \"quoted\"\nand =1" || rows[1][6] != `a"b` || !strings.Contains(got.Out, "quoted\"\"\r\nand") {
		t.Errorf("%v: %q", err, got.Out)
	}
}

// TestQueriesOutOfMeasure each get an error that says what is wrong and what to
// do, at once.
func TestQueriesOutOfMeasure(t *testing.T) {
	r := newRealLogs(t)
	r.write("a.log", `{"odd \"key\"":"x","user":"alice"}`)
	r.waitFor("", 1)
	many := func(n int) []string { return slices.Repeat([]string{"a"}, n) }
	for name, tc := range map[string]struct {
		args   []string
		status int
		says   []string
	}{
		"a megabyte":         {[]string{"logs", strings.Repeat("x", 1<<20)}, 2, []string{"the query is too long: 1048576 bytes", "hint: put alternatives into one list"}},
		"a megabyte saved":   {[]string{"logs", "saved", "save", "x", strings.Repeat("x", 1<<20)}, 2, []string{"the query is too long"}},
		"a megabyte purged":  {[]string{"logs", "purge", strings.Repeat("x", 1<<20)}, 2, []string{"the query is too long"}},
		"just fits":          {append([]string{"logs"}, "user="+strings.Repeat("x", 15<<10-9)), 0, nil},
		"ten thousand terms": {append([]string{"logs", "count"}, many(10_000)...), 2, []string{"the query is too long"}},
		"too many terms":     {append([]string{"logs", "count"}, many(300)...), 2, []string{"the query is wrong at column 513: more than 256 terms", "hint: put alternatives into one list"}},
		"too many values":    {[]string{"logs", "user=" + strings.Repeat("a,", 1500)}, 2, []string{"more than 1000 values"}},
		"a regex":            {[]string{"logs", "(a+)+$"}, 0, nil},
		"middle":             {[]string{"logs", "a*b"}, 2, []string{"* can only be the end"}},
		"quoted name":        {[]string{"logs", "count", `"odd \"key\""=x`}, 0, nil},
		"top of it":          {[]string{"logs", "top", `odd "key"`}, 0, nil},
		"top of no field":    {[]string{"logs", "top", ""}, 2, []string{"the name of a field is empty", "vpnctl logs fields"}},
		"a name too long":    {[]string{"logs", "top", strings.Repeat("f", 129)}, 2, []string{"field: is too long: at most 128 characters"}},
		"by a name too long": {[]string{"logs", "histogram", "--by", strings.Repeat("f", 129)}, 2, []string{"by: is too long"}},
		"grouped by time":    {[]string{"logs", "stats", "--by", "time"}, 2, []string{`records cannot be grouped by "time"`, "use histogram"}},
		"a saved name":       {[]string{"logs", "saved", "save", "a/b", "user=x"}, 2, []string{`"a/b" is no name for a saved query`, "hint: a name is up to 64 letters"}},
		"NUL":                {[]string{"logs", "a\x00b"}, 2, []string{"NUL", "hint: leave it out"}},
		"no UTF-8":           {[]string{"logs", "a\xff"}, 2, []string{"the query is not UTF-8", "hint: "}},
		"too many lines":     {[]string{"logs", "top", "user", "-n", "1001"}, 2, []string{"limit: must be 1000 or less"}},
		"tiny buckets":       {[]string{"logs", "histogram", "--bucket", "1ms"}, 2, []string{"is no bucket", "whole seconds"}},
	} {
		began := time.Now()
		got := r.terminal.Run(t.Context(), tc.args...)
		if got.Status != tc.status {
			t.Errorf("%s: exit status %d, want %d: %.300s", name, got.Status, tc.status, got.Err)
		}
		for _, want := range tc.says {
			if !strings.Contains(got.Err, want) {
				t.Errorf("%s: %.300q, want %q in it", name, got.Err, want)
			}
		}
		if len(got.Err) > 1000 || time.Since(began) > 10*time.Second {
			t.Errorf("%s: %d bytes of error, after %v", name, len(got.Err), time.Since(began))
		}
	}
	if got := r.terminal.Run(t.Context(), "logs", "top", `odd "key"`, "-o", "name"); got.Out != "x\n" {
		t.Errorf("top of an odd name: %q %s", got.Out, got.Err)
	}
}

// lots writes more lines than fit into a pipe and a moment.
func (r *realLogs) lots(n int) {
	r.t.Helper()
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"service":"lots","n":%d,"message":"a line that is there to be many"}`, i)
	}
	r.write("lots.log", lines...)
	r.waitFor("", int64(n))
}

func (r *realLogs) shell(script string) (out, errs string, status int) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "sh", "-c", script)
	cmd.Env = append(os.Environ(), "VPNCTL_HOST="+r.terminal.Host, "LOGS="+r.dir, "STORE="+r.store)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
	} else if err != nil {
		r.t.Fatal(err)
	}
	return o.String(), e.String(), status
}

// TestAPipeThatClosesEndsQuietly: a reader who has enough is no error.
func TestAPipeThatClosesEndsQuietly(t *testing.T) {
	r := newRealLogs(t)
	r.lots(20_000)
	for _, args := range []string{"logs -n 0", "logs -n 0 -o jsonl", "logs -n 0 -o raw", "logs export", "logs export --format csv", "logs -f -n 20000 -o name"} {
		out, errs, status := r.shell("vpnctl " + args + " | head -n 2")
		if status != 0 || errs != "" || strings.Count(out, "\n") != 2 {
			t.Errorf("%s: exit status %d, %d lines, %q", args, status, strings.Count(out, "\n"), errs)
		}
	}
}

// TestOutputIsNotLedIntoTheWatchedFolder: it would come back line by line, for
// ever.
func TestOutputIsNotLedIntoTheWatchedFolder(t *testing.T) {
	r := newRealLogs(t)
	r.lots(10)
	for _, script := range []string{
		`vpnctl logs export > "$LOGS/x.log"`, `vpnctl logs -f >> "$LOGS/x.log"`, `cd "$LOGS" && vpnctl logs -n 0 > ./../log/x.log`,
		`cd "$STORE" && vpnctl logs > x.log`, `vpnctl service logs lots > "$STORE/days/x"`, `ln -s "$LOGS" "$LOGS-link" && vpnctl logs export > "$LOGS-link/x.txt"`,
		`vpnctl logs export --out "$LOGS-link/y.log"`, `cd "$LOGS" && vpnctl logs export --out y.log`, `cd "$STORE/days" && vpnctl logs export --out ../y.log`,
	} {
		_, errs, status := r.shell(script)
		if status != 2 || !strings.Contains(errs, " is where vpnd ") || !strings.Contains(errs, "hint: write it to another folder") {
			t.Errorf("%s: exit status %d: %s", script, status, errs)
		}
	}
	if out, errs, status := r.shell(`cd "$(mktemp -d)" && vpnctl logs export > x.log && wc -l < x.log && rm x.log && rmdir "$PWD"`); status != 0 || strings.TrimSpace(out) != "10" {
		t.Errorf("into another folder: exit status %d: %q %s", status, out, errs)
	}
}

// TestAnInterruptedExportLeavesNoHalfFile sends what Ctrl-C does while the lines
// are written.
func TestAnInterruptedExportLeavesNoHalfFile(t *testing.T) {
	r := newRealLogs(t)
	r.lots(60_000)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "vpnctl", "logs", "export", "--out", filepath.Join(dir, "all.jsonl"))
	cmd.Env = append(os.Environ(), "VPNCTL_HOST="+r.terminal.Host)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			continue
		}
		if entries[0].Name() == "all.jsonl" {
			t.Fatal("it was quicker than Ctrl-C")
		}
		if info, err := entries[0].Info(); err == nil && info.Size() > 0 {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit status %d: %s", got, &errs)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
}

// TestAnExportNeedsLittleMemory compares what a small and a large one take.
func TestAnExportNeedsLittleMemory(t *testing.T) {
	r := newRealLogs(t)
	r.lots(60_000)
	peak := func(query string) (lines int, kib int) {
		cmd := exec.CommandContext(t.Context(), "vpnctl", "logs", "export", query)
		cmd.Env = append(os.Environ(), "VPNCTL_HOST="+r.terminal.Host)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for sc := bufio.NewScanner(out); sc.Scan(); lines++ {
			var v map[string]any
			if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
				t.Fatal(err)
			}
			if lines%500 == 0 {
				kib = max(kib, highest(t, cmd.Process.Pid))
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return lines, kib
	}
	few, small := peak("n<1000")
	all, large := peak("n>=0")
	t.Logf("%d lines take %d KiB, %d lines %d KiB", few, small, all, large)
	if few != 1000 || all != 60_000 || large > small+32<<10 {
		t.Errorf("%d lines take %d KiB, %d lines %d KiB", few, small, all, large)
	}
}

// highest is the most memory that a process had, in KiB; 0 when it has ended.
func highest(t *testing.T, pid int) int {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// TestLinesForPrograms: one object a line, whatever is in it, and numbers as
// they were written.
func TestLinesForPrograms(t *testing.T) {
	r := newRealLogs(t)
	r.story()
	got := r.terminal.Run(t.Context(), "logs", "level>=warn since=1h", "-o", "jsonl")
	n := 0
	for line := range strings.Lines(got.Out) {
		var v logs.Record
		if err := json.Unmarshal([]byte(line), &v); err != nil || !strings.HasSuffix(line, "}\n") || !slices.Contains([]string{"warn", "error"}, v.Level) || v.ID == "" {
			t.Errorf("%s: %v", line, err)
		}
		n++
	}
	if got.Status != 0 || got.Err != "" || n != 12 {
		t.Errorf("exit status %d, %d lines: %s", got.Status, n, got.Err)
	}
	raw := r.terminal.Run(t.Context(), "logs", "event=ping since=5m", "-o", "raw")
	var v map[string]any
	if err := json.Unmarshal([]byte(raw.Out), &v); err != nil || v["dur_ms"] != 1.5 || v["event"] != "ping" {
		t.Errorf("%q: %v", raw.Out, err)
	}
	if _, err := exec.LookPath("jq"); errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return
	}
	out, errs, status := r.shell(`vpnctl logs 'level>=warn since=1h' -o jsonl | jq -s length`)
	if status != 0 || strings.TrimSpace(out) != strconv.Itoa(n) {
		t.Errorf("exit status %d: %q %s", status, out, errs)
	}
}
