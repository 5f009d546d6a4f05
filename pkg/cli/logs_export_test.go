package cli_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
)

func TestExportToAFile(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "all.jsonl")
	w := fakevpnd.New()
	term := terminal(t, w)
	r := term.Run(t.Context(), "logs", "export", "--out", out)
	if r.Status != 0 || r.Out != "" || !strings.Contains(r.Err, "8 lines, ") {
		t.Fatalf("exit status %d, stdout %q, stderr %q", r.Status, r.Out, r.Err)
	}
	var got []logs.Record
	for line := range strings.Lines(readFile(t, out)) {
		var v logs.Record
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	w.Do(func(w *fakevpnd.World) {
		if len(got) != len(w.Logs) || got[6].Message != w.Logs[6].Message || string(got[5].Fields) != string(w.Logs[5].Fields) {
			t.Errorf("exported %+v", got)
		}
	})
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others may read it", info.Mode(), err)
	}
	if r := term.Run(t.Context(), "logs", "export", "--out", out, "user=bob"); r.Status != 5 || !strings.Contains(r.Err, "--force") {
		t.Errorf("a file that is there: exit status %d: %s", r.Status, r.Err)
	}
	if n := strings.Count(readFile(t, out), "\n"); n != 8 {
		t.Errorf("it was overwritten: %d lines", n)
	}
	r = term.Run(t.Context(), "logs", "export", "--out", out, "user=bob", "--force", "-o", "json")
	var done struct {
		File  string
		Lines int
		Bytes int
	}
	if err := json.Unmarshal([]byte(r.Out), &done); err != nil || done.File != out || done.Lines != 2 || done.Bytes != len(readFile(t, out)) {
		t.Errorf("%v: %+v: %s", err, done, r.Err)
	}
	onlyFile(t, dir, "all.jsonl")
}

func TestAnExportThatDoesNotComeToItsEndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "all.csv")
	if err := os.WriteFile(out, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) { w.ExportShort = true })
	r := terminal(t, w).Run(t.Context(), "logs", "export", "--out", out, "--force", "--format", "csv")
	if r.Status != 7 || !strings.Contains(r.Err, "vpnd ended the export after 4 lines, before its end") {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
	if got := readFile(t, out); got != "before" {
		t.Errorf("the file holds %q", got)
	}
	onlyFile(t, dir, "all.csv")
	if r := terminal(t, w).Run(t.Context(), "logs", "export", "user=nobody"); r.Status != 0 || r.Out != "" {
		t.Errorf("nothing: exit status %d: %s", r.Status, r.Err)
	}
}

func TestExportsAreRefusedWhereTheyDoHarm(t *testing.T) {
	dir := t.TempDir()
	watched := filepath.Join(dir, "watched")
	store := filepath.Join(dir, "store")
	if err := errors.Join(os.MkdirAll(filepath.Join(watched, "sub"), 0o755), os.MkdirAll(filepath.Join(store, "days"), 0o755), os.Mkdir(filepath.Join(dir, "watched2"), 0o755),
		os.Symlink(watched, filepath.Join(dir, "link")), os.Symlink("/etc/passwd", filepath.Join(dir, "passwd"))); err != nil {
		t.Fatal(err)
	}
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) {
		// As they are configured: through links, and one that is not there.
		w.LogStatus.Dirs, w.LogStatus.Store = []string{filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")}, store
	})
	term := terminal(t, w)
	t.Chdir(filepath.Join(dir, "watched2"))
	for out, says := range map[string]string{
		"store/x.jsonl":       "is where vpnd keeps its log lines",
		"store/days/x.csv":    "is where vpnd keeps its log lines",
		"watched/x.jsonl":     "is where vpnd reads logs from",
		"watched/sub/x.jsonl": "is where vpnd reads logs from",
		"link/x.jsonl":        "is where vpnd reads logs from",
		"watched":             "is no regular file",
		"passwd":              "is no regular file",
		"nowhere/x.jsonl":     "no such file",
	} {
		r := term.Run(t.Context(), "logs", "export", "--force", "--out", filepath.Join(dir, out))
		if r.Status != 2 || !strings.Contains(r.Err, says) {
			t.Errorf("%s: exit status %d: %s", out, r.Status, r.Err)
		}
	}
	for _, out := range []string{"../watched/x.jsonl", "./../link/sub/../x.jsonl", "../store/days/../x"} {
		if r := term.Run(t.Context(), "logs", "export", "--force", "--out", out); r.Status != 2 || !strings.Contains(r.Err, "--out "+out+" is where vpnd") || !strings.Contains(r.Err, "hint: write it to another folder") {
			t.Errorf("%s: exit status %d: %s", out, r.Status, r.Err)
		}
	}
	if r := term.Run(t.Context(), "logs", "export", "--out", "x.jsonl"); r.Status != 0 { // a folder with a name that only begins the same
		t.Errorf("beside it: exit status %d: %s", r.Status, r.Err)
	}
	if r := term.Run(t.Context(), "logs", "export", "--force", "--out", "/dev/null"); r.Status != 2 {
		t.Errorf("/dev/null: exit status %d", r.Status)
	}
	if r := term.Run(t.Context(), "logs", "export", "--format", "xml"); r.Status != 2 || !strings.Contains(r.Err, "use jsonl or csv") {
		t.Errorf("exit status %d: %s", r.Status, r.Err)
	}
	onlyFile(t, watched, "sub")
}

// The attack: a user agent that a spreadsheet takes for a formula.
func TestSpreadsheetsRunNothing(t *testing.T) {
	w := fakevpnd.New()
	evil := []string{"=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1", `"=1`, `'=1`, " =1", "\ufeff@x", "\"\t=1"}
	w.Do(func(w *fakevpnd.World) {
		w.Logs = nil
		for _, e := range evil {
			r := fakevpnd.LogLine(e, time.Minute, "info", e, e, e, e, "")
			r.Device, r.Session, r.RequestID, r.File = e, e, e, e
			w.Logs = append(w.Logs, r)
		}
	})
	for _, tty := range []bool{false, true} {
		term := terminal(t, w)
		term.TTY = tty
		r := term.Run(t.Context(), "logs", "export", "--format", "csv")
		rows, err := csv.NewReader(strings.NewReader(r.Out)).ReadAll()
		if err != nil || len(rows) != len(evil)+1 {
			t.Fatalf("%v: %d rows: %s", err, len(rows), r.Err)
		}
		for _, row := range rows[1:] {
			for i, c := range row {
				if c = strings.TrimLeft(c, "\" \ufeff"); c != "" && (strings.ContainsAny(c[:1], "=+-@\t\r\n") || strings.HasPrefix(c, "\uff0b") || strings.HasPrefix(c, "\uff1d")) {
					t.Errorf("column %s holds %q", rows[0][i], c)
				}
			}
		}
	}
	for _, ok := range []string{"", "a=1", "1-2", "日本"} {
		if got := cli.NoFormula(ok); got != ok {
			t.Errorf("%q became %q", ok, got)
		}
	}
}

func TestExportShowsItselfOnATerminal(t *testing.T) {
	w := fakevpnd.New()
	r := terminal(t, w).Run(t.Context(), "logs", "export", "--format", "csv")
	if strings.ContainsAny(r.Out, "\x1b\x07\u202e") || !strings.Contains(r.Out, `\x1b]0;owned`) {
		t.Errorf("the terminal would obey this: %q", r.Out)
	}
	golden(t, "logs_export.csv", r.Out)
	term := terminal(t, w)
	term.TTY = false
	if r := term.Run(t.Context(), "logs", "export", "--format", "csv"); !strings.Contains(r.Out, "\x1b]0;owned\a") {
		t.Error("a program does not get the text as it is")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// onlyFile wants nothing beside a file: no temporary ones.
func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("%s holds %v, %v", dir, entries, err)
	}
}
