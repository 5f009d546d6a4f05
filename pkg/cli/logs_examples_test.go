package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/cli"
)

// docs is the manual whose examples are run too.
const docs = "../../docs/logs.md"

// TestExamplesWork has a shell run every example as it is typed, against a log
// service that reads real files: those of the help, of the manual page and of
// the manual. One that is added is run too.
func TestExamplesWork(t *testing.T) {
	var examples []string
	for _, under := range []string{"logs", "service logs", "session logs", "user logs"} {
		examples = append(examples, cli.HelpExamples(t, under)...)
	}
	slices.Sort(examples)
	examples = slices.Compact(examples)
	help, page, manual := len(examples), manExamples(t), docsExamples(t)
	if help < 30 || len(page) < 30 || len(manual) < 15 {
		t.Errorf("only %d examples were found in the help, %d in the page and %d in the manual", help, len(page), len(manual))
	}
	examples = slices.Concat(examples, page, manual)
	t.Chdir(t.TempDir())
	r := newRealLogs(t)
	r.story()
	env := append(os.Environ(), "VPNCTL_HOST="+r.terminal.Host, "VPNCTL_SOCKET="+strings.TrimPrefix(r.terminal.Host, "unix://"))
	slices.Sort(examples)
	for i, example := range slices.Compact(examples) {
		runExample(t, r, env, example, i)
	}
}

func runExample(t *testing.T, r *realLogs, env []string, example string, n int) {
	t.Helper()
	line := command(example)
	if strings.Contains(line, "| jq") || strings.HasPrefix(line, "curl ") {
		tool := "jq"
		if strings.HasPrefix(line, "curl ") {
			tool = "curl"
		}
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("%s: there is no %s here", example, tool)
			line, _, _ = strings.Cut(line, "|")
			if tool == "curl" {
				return
			}
		}
	}
	// What an example needs is there, whatever was run before it.
	if strings.Contains(line, "saved ") {
		if got := r.terminal.Run(t.Context(), "logs", "saved", "save", "refused", `service=auth level>=warn "sign-in refused"`); got.Status != 0 {
			t.Fatal(got.Err)
		}
	}
	r.write("purged.log", `{"service":"gateway","event":"ping","user":"carol"}`, `{"ts":"`+time.Now().UTC().AddDate(0, 0, -10).Format(time.RFC3339)+`","service":"gateway","event":"ping","n":`+strconv.Itoa(n)+`}`)
	r.waitFor("n="+strconv.Itoa(n), 1)
	for _, f := range regexp.MustCompile(`(?:--out|>) (\S+)`).FindAllStringSubmatch(line, -1) {
		if !strings.Contains(line, "--force") {
			_ = os.Remove(f[1])
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", strings.ReplaceAll(line, "/run/vpnd/control.sock", "$VPNCTL_SOCKET"))
	out, errs := &screen{}, &bytes.Buffer{}
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	want := 0
	switch words := strings.Fields(line); {
	case slices.Contains(words, "-f"), strings.Contains(line, "logs-follow"), slices.Contains(words, "-w"):
		want = 130
		shown := fmt.Sprintf("brand-new-%d-", n)
		if slices.Contains(words, "-w") {
			shown = "lines in"
		}
		// It may not listen yet when a line is written, and shows only the newest of before.
		for !strings.Contains(out.String(), shown) && ctx.Err() == nil {
			r.write("new.log", brandNew(n))
			time.Sleep(50 * time.Millisecond)
		}
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Errorf("%s: %v", example, err)
		}
	case slices.Contains(words, "--dry-run"):
		want = 10
	}
	err := cmd.Wait()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if got = exit.ExitCode(); exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGINT {
			got = 130 // a program that does not answer it itself, such as curl
		}
	}
	if got != want {
		t.Errorf("%s: exit status %d, want %d: %s%s", example, got, want, out, errs)
	}
	if mayBeEmpty.MatchString(line) {
		return
	}
	text := out.String()
	for _, f := range regexp.MustCompile(`(?:--out|>) (\S+)`).FindAllStringSubmatch(line, -1) {
		text += readFile(t, f[1])
	}
	if strings.Contains(line, "delete") || strings.Contains(line, "purge") {
		text += errs.String()
	}
	if text = strings.TrimSpace(text); text == "" || text == "0" || text == "[]" || strings.Contains(text, `"items": []`) {
		t.Errorf("%s: found nothing: %q %s", example, text, errs)
	}
}

// TestTheManualPageIsFresh makes it anew and compares, and has the formatter
// look for mistakes.
func TestTheManualPageIsFresh(t *testing.T) {
	const page = "../../man/vpnctl-logs.1"
	got := cli.Terminal{}.Run(t.Context(), "man", "vpnctl-logs")
	if got.Status != 0 || got.Out != readFile(t, page) {
		t.Errorf("%s is not what the program prints: 'make generate'; %s", page, got.Err)
	}
	for _, c := range got.Out {
		if c > '~' || c < ' ' && c != '\n' {
			t.Errorf("%q is in it", c)
		}
	}
	if r := (cli.Terminal{}).Run(t.Context(), "man", "vpnctl"); r.Status != 2 {
		t.Errorf("a page that is not there: exit status %d", r.Status)
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("there is no groff here")
	}
	cmd := exec.CommandContext(t.Context(), "groff", "-ww", "-b", "-man", "-Tutf8")
	cmd.Stdin = strings.NewReader(got.Out)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil || errs.Len() > 0 || !bytes.Contains(text, []byte("vpnctl logs -f")) {
		t.Errorf("%v: %s", err, errs.Bytes())
	}
}

// mayBeEmpty are examples about a date or a time of day, for which there may be
// no lines.
var mayBeEmpty = regexp.MustCompile(`\b\d\d:\d\d\b|\b20\d\d-\d\d`)

// command is an example without the words that explain it.
func command(example string) string {
	quoted := false
	for i, c := range example {
		switch {
		case c == '\'':
			quoted = !quoted
		case !quoted && strings.HasPrefix(example[i:], "   "):
			return example[:i]
		}
	}
	return example
}

// manExamples are those of the manual page, as a reader sees them.
func manExamples(t *testing.T) []string {
	t.Helper()
	page := readFile(t, "../../man/vpnctl-logs.1")
	_, page, found := strings.Cut(page, "\n.SH \"EXAMPLES\"\n")
	page, _, _ = strings.Cut(page, "\n.SH")
	if !found {
		t.Error("the manual page has no examples")
	}
	var out []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "vpnctl ") {
			out = append(out, unroff(strings.TrimSpace(line)))
		}
	}
	return out
}

func unroff(s string) string {
	s = strings.NewReplacer(`\e`, `\`, `\-`, "-", `\(aq`, "'", `\(ha`, "^", `\(ti`, "~", `\(ga`, "`", `\(dq`, `"`, `\&`, "").Replace(s)
	return regexp.MustCompile(`\\\[u([0-9A-F]+)\]`).ReplaceAllStringFunc(s, func(m string) string {
		n, _ := strconv.ParseInt(m[3:len(m)-1], 16, 32)
		return string(rune(n))
	})
}

// docsExamples are the commands in the blocks of the manual.
func docsExamples(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, block := range strings.Split(readFile(t, docs), "```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "   #")
			if strings.HasPrefix(line, "vpnctl ") || strings.HasPrefix(line, "curl ") {
				out = append(out, line)
			}
		}
	}
	return out
}

// tableRow is a row of a table of the manual whose first cell is a query.
var tableRow = regexp.MustCompile("^\\| `` (.*?) `` \\| (.*?) \\|")

// TestQueriesOfTheManualWork asks each query of its tables, and those of the
// manual page. A mistake is found at the column that the manual says.
func TestQueriesOfTheManualWork(t *testing.T) {
	r := newRealLogs(t)
	r.story()
	asked := 0
	for line := range strings.Lines(readFile(t, docs)) {
		m := tableRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		asked++
		got := r.terminal.Run(t.Context(), "logs", "count", "-o", "json", "--", m[1])
		column, err := strconv.Atoi(m[2])
		switch {
		case err != nil && got.Status != 0:
			t.Errorf("%s: exit status %d: %s", m[1], got.Status, got.Err)
		case err == nil && (got.Status != 2 || !strings.Contains(got.Err, fmt.Sprintf(`"message":"column %d: `, column))):
			t.Errorf("%s: exit status %d, want a mistake at column %d: %s", m[1], got.Status, column, got.Err)
		}
	}
	for _, query := range cli.LogsManTerms() {
		asked++
		got := r.terminal.Run(t.Context(), "logs", "count", "--", query)
		empty := strings.Contains(query, "odd key") || strings.Contains(query, "yesterday")
		if got.Status != 0 || got.Out == "0\n" && !empty {
			t.Errorf("%s: exit status %d: %s%s", query, got.Status, got.Out, got.Err)
		}
	}
	if asked < 50 {
		t.Errorf("only %d queries were found", asked)
	}
}
