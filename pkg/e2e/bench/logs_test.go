//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/logline"
)

func TestTheLinesOfTheCorpusSayWhatTheFloorsAreGiven(t *testing.T) {
	from := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	g, last := newLogTraffic(7, from, time.Millisecond), time.Time{}
	for range 2000 {
		var e logEntry
		g.next(&e)
		line := e.appendLine(nil)
		r := logline.Parse(line[:len(line)-1], logline.Defaults{Now: time.Now()})
		peer, _ := r.Get("peer")
		got := logEntry{r.Time, r.Level, r.Service, r.Event, r.Message, r.User, r.RequestID, peer, e.dur, e.try, e.ok}
		if diff := cmp.Diff(e, got, cmp.AllowUnexported(logEntry{})); diff != "" {
			t.Fatalf("%s\n%s", line, diff)
		}
		if !e.at.After(last) || e.at.Before(from) || e.at.After(from.Add(2*time.Second)) {
			t.Fatalf("%v comes after %v", e.at, last)
		}
		last = e.at
	}
}

func TestALogFileEndsWithTheLineThatIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	n, _, err := writeLogFile(path, newLogTraffic(1, time.Now().UTC(), time.Millisecond), linesAWrite+1, "the_end")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if int64(len(data)) != n || len(lines) != linesAWrite+1 || requestOf([]byte(lines[linesAWrite])) != "the_end" {
		t.Errorf("%d of %d bytes, %d lines, the last %s", len(data), n, len(lines), lines[len(lines)-1])
	}
}

// TestScanBackFindsTheLastLines has files of many parts, in which a line in
// seven has the word.
func TestScanBackFindsTheLastLines(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	all := 0
	for _, name := range []string{"a", "b"} {
		var b strings.Builder
		for i := range 50_000 {
			b.WriteString(strings.Repeat("x", i%60))
			if i%7 == 0 {
				b.WriteString("word word")
				all++
			}
			b.WriteByte('\n')
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	for want, most := range map[int]int{100: 100, all: 1 << 30, 0: 0} {
		if got, err := scanBack(paths, "word", most); err != nil || got != want {
			t.Errorf("at most %d: got %d, %v, want %d", most, got, err, want)
		}
	}
	if got, err := scanBack(paths, "nosuchword", 100); err != nil || got != 0 {
		t.Errorf("got %d, %v, want nothing", got, err)
	}
}

func TestParseResident(t *testing.T) {
	peak, now, err := parseResident("Name:\tvpnd\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t9\n")
	if err != nil || peak != 2 || now != 1 {
		t.Errorf("got %v, %v, %v, want 2 and 1", peak, now, err)
	}
	if _, _, err := parseResident("Name:\tkthreadd\n"); err == nil {
		t.Error("a text without memory was taken")
	}
	if peak, now, err := resident(os.Getpid()); err != nil || peak < now || now <= 0 {
		t.Errorf("this process: %v, %v, %v", peak, now, err)
	}
}

func TestRemovalsAreThoseOfTheLastStart(t *testing.T) {
	got, err := removals(`{"ts":"2030-01-02T03:04:05Z","event":"started"}
{"ts":"2030-01-02T03:04:06Z","event":"day removed"}
{"ts":"2030-01-02T04:00:00Z","event":"started"}
{"ts":"2030-01-02T04:00:00.01Z","event":"day removed"}
{"ts":"2030-01-02T04:00:00.02Z","event":"log_day_removed"}
{"ts":"2030-01-02T04:00:00.04Z","event":"day removed"}
{"ts":"2030-01-02T04:0`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samples{10, 30}, got); diff != "" {
		t.Error(diff)
	}
}

// TestTailFile has a reader that comes in the middle of a line.
func TestTailFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(s string) {
		if _, err := f.WriteString(s); err != nil {
			t.Error(err)
		}
	}
	write("one\ntw")
	var got []string
	err = tailFile(t.Context(), path, func(line []byte) bool {
		if got = append(got, string(line)); len(got) == 1 {
			write("o\nthree\n")
		}
		return len(got) == 3
	})
	if diff := cmp.Diff([]string{"one", "two", "three"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestTheNumberOfLinesCanBeChosen(t *testing.T) {
	for env, want := range map[string]int{"": 1_000_000, "5000000": 5_000_000} {
		t.Setenv(rowsEnv, env)
		if got, err := logRows(options{}); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", env, got, err, want)
		}
	}
	for _, bad := range []string{"5M", "100", "-1", "1e6"} {
		t.Setenv(rowsEnv, bad)
		if _, err := logRows(options{}); err == nil {
			t.Errorf("%q was taken for a number of lines", bad)
		}
	}
}
