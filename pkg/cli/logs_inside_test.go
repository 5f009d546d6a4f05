package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// LogsValue, LogsTime, NoFormula and Caret are for tests from outside.
var (
	LogsValue = logsValue
	LogsTime  = logsTime
	NoFormula = noFormula
	Caret     = caret
)

// LogsManTerms are the queries of the manual page.
func LogsManTerms() []string {
	var out []string
	for _, t := range logsManTerms() {
		out = append(out, t[0])
	}
	return out
}

// HelpExamples gives every example of a command and those below it, as typed.
func HelpExamples(t *testing.T, under string) []string {
	t.Helper()
	var out []string
	for path, cmd := range Leaves(t) {
		parents := []string{cmd.Example}
		for p := cmd.Parent(); p != nil && p.HasParent(); p = p.Parent() {
			parents = append(parents, p.Example)
		}
		if path != under && !strings.HasPrefix(path, under+" ") {
			continue
		}
		for _, e := range parents {
			for line := range strings.Lines(e) {
				if line = strings.TrimSpace(line); line != "" {
					out = append(out, line)
				}
			}
		}
	}
	return out
}

func TestBucketsAreReadBackAsTheyAreWritten(t *testing.T) {
	for in, want := range map[string]string{"30s": "30s", "5m": "5m", "90m": "1h30m", "1h": "1h", "24h": "1d", "7d": "7d", "10m": "10m", "20h": "20h"} {
		var b bucketSize
		if err := b.Set(in); err != nil || b.String() != want {
			t.Errorf("%s: %v, %q", in, err, b.String())
		}
	}
	for _, in := range []string{"", "0", "0s", "-1h", "1ms", "366d", "-1d", "xd", "1500ms", "9999999h"} {
		b := bucketSize(time.Hour)
		if err := b.Set(in); err == nil || b != bucketSize(time.Hour) {
			t.Errorf("%q was taken: %s", in, b.String())
		}
	}
}

func TestProgressIsForTerminalsAndCleansUp(t *testing.T) {
	for _, tc := range []struct {
		tty, quiet, wanted bool
		output, want       string
	}{
		{true, false, true, "table", "\r\x1b[K7 lines \\x1b\r\x1b[K"},
		{false, false, true, "table", ""}, {true, true, true, "table", ""}, {true, false, false, "table", ""}, {true, false, true, "json", ""},
	} {
		var errs bytes.Buffer
		p := (&factory{streams: streams{err: &errs, errTTY: tc.tty}, quiet: tc.quiet, output: tc.output}).progress(tc.wanted)
		p.show(func() string { t.Error("asked too early"); return "" })
		p.next = time.Time{}
		p.show(func() string { return "7 lines \x1b" })
		if p.end(); errs.String() != tc.want {
			t.Errorf("%+v: %q", tc, errs.String())
		}
	}
}
