package view_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/view"
)

func now() time.Time { return time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC) }

// anyText is a text that a terminal has trouble with.
func anyText(rnd *rand.Rand, n int) string {
	alphabet := []rune("ab =\"\\\t\n\x1b\u009b\u202e日本🙂e\u0301\u200d\U000e0041ノ…\x00")
	var b strings.Builder
	for range rnd.IntN(n + 1) {
		b.WriteRune(alphabet[rnd.IntN(len(alphabet))])
	}
	if rnd.IntN(4) == 0 {
		b.WriteByte(0xff)
	}
	return b.String()
}

func anyRecord(t *testing.T, rnd *rand.Rand) logs.Record {
	t.Helper()
	levels := []string{"", "trace", "debug", "info", "warn", "error", "fatal", anyText(rnd, 30)}
	r := logs.Record{
		ID: anyText(rnd, 10), Time: now().Add(-time.Duration(rnd.Int64N(int64(9000 * time.Hour)))), Level: levels[rnd.IntN(len(levels))],
		Service: anyText(rnd, 30), Event: anyText(rnd, 20), Message: anyText(rnd, 300), User: anyText(rnd, 20), Session: anyText(rnd, 30), Cut: rnd.IntN(9) == 0,
	}
	fields := map[string]string{}
	for range rnd.IntN(6) {
		fields[anyText(rnd, 10)] = anyText(rnd, 60)
	}
	var err error
	if r.Fields, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLogLinesStayInTheTerminal and do nothing to it, whatever they say.
func TestLogLinesStayInTheTerminal(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 800 {
		width := 70 + rnd.IntN(90)
		l := view.LogLayout{Width: width, Wrap: rnd.IntN(2) == 0, Theme: view.Theme{Unicode: rnd.IntN(3) > 0}}
		var batch []logs.Record
		for range 1 + rnd.IntN(3) {
			batch = append(batch, anyRecord(t, rnd))
		}
		lines := l.Lines(batch, now())
		if !l.Wrap && len(lines) > 3*len(batch) {
			t.Fatalf("%d: %d lines of %d records", i, len(lines), len(batch))
		}
		for _, line := range lines {
			if view.Width(line) > width || strings.ContainsAny(line, "\x1b\u009b\u202e\x00\n\t\u200d\U000e0041") {
				t.Fatalf("%d: %d cells of %d: %q of %+v", i, view.Width(line), width, line, batch)
			}
		}
	}
}

// TestWrappingLosesNothing but the spaces where lines break.
func TestWrappingLosesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
	for range 300 {
		r := anyRecord(t, rnd)
		r.Service = "auth"
		wide := view.LogLayout{Theme: view.Theme{Unicode: true}, Wrap: true}
		wrapped := view.LogLayout{Theme: view.Theme{Unicode: true}, Wrap: true, Width: 80}
		want, got := wide.Lines([]logs.Record{r}, now()), wrapped.Lines([]logs.Record{r}, now())
		if len(want) != 1 || squeeze(strings.Join(got, "")) != squeeze(want[0]) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
		}
	}
}

func TestLogLinesStayAligned(t *testing.T) {
	l := view.LogLayout{Width: 100, Theme: view.Theme{Unicode: true}}
	rec := func(service, message string) logs.Record {
		return logs.Record{Time: now(), Level: "info", Service: service, Message: message, User: "alice"}
	}
	first := l.Lines([]logs.Record{rec("authority", "a message that is long"), rec("x", "y")}, now())
	later := l.Lines([]logs.Record{rec("ipam", "z")}, now())
	at := strings.Index(first[0], "user=alice")
	for _, line := range append(first, later...) {
		if strings.Index(line, "user=alice") != at {
			t.Errorf("not aligned:\n%s", strings.Join(append(first, later...), "\n"))
		}
	}
	yesterday := rec("ipam", "z")
	yesterday.Time = now().AddDate(0, 0, -1)
	if got := l.Lines([]logs.Record{yesterday}, now())[0]; !strings.HasPrefix(got, "03-13 15:09:26 INFO  ipam") {
		t.Errorf("of another day: %q", got)
	}
}

func TestLevelsAreWordsAndColours(t *testing.T) {
	l := view.LogLayout{Width: 100, Theme: view.Theme{Unicode: true, Color: true}}
	for level, colour := range map[string]string{"error": "\x1b[31m", "fatal": "\x1b[31m", "warn": "\x1b[33m", "info": "\x1b[36m", "debug": "\x1b[2m"} {
		line := l.Lines([]logs.Record{{Time: now(), Level: level, Message: "x"}}, now())[0]
		if !strings.Contains(line, colour+strings.ToUpper(level)) {
			t.Errorf("%s: %q", level, line)
		}
	}
}

// The attack: a megabyte of characters that take no room, which makes
// measuring the whole again for each of them a matter of hours.
func TestAMegabyteOfMarksIsShown(t *testing.T) {
	r := logs.Record{Time: now(), Message: strings.Repeat("\u0301", 1<<19), Service: strings.Repeat("\u0301", 1<<19), Fields: json.RawMessage(`{"` + strings.Repeat("\u0301", 1<<18) + `":"x"}`)}
	for _, wrap := range []bool{false, true} {
		l := view.LogLayout{Width: 80, Wrap: wrap, Theme: view.Theme{Unicode: true}}
		lines := l.Lines([]logs.Record{r}, now())
		if !wrap && len(lines) > 3 {
			t.Errorf("%d lines", len(lines))
		}
		for _, line := range lines {
			if len(line) > 8000 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	}
}

func TestFieldsKeepTheirOrderAndTwins(t *testing.T) {
	got := fmt.Sprint(view.MoreLogFields(json.RawMessage(`{"b":1.50,"a":"x","b":[1, 2],"n":null,"t":true}`)))
	if want := "[{b 1.50 [49 46 53 48]} {a x [34 120 34]} {b [1, 2] [91 49 44 32 50 93]} {n null [110 117 108 108]} {t true [116 114 117 101]}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, none := range []string{"", "null", "[]", "1", "{", `{"a"`, `{"a":}`} {
		if got := view.MoreLogFields(json.RawMessage(none)); len(got) != 0 {
			t.Errorf("%s: %v", none, got)
		}
	}
}

// TestHistogramsOfAnythingFit draws random buckets: no line is too wide, and
// a bar is no longer than the longest.
func TestHistogramsOfAnythingFit(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 300 {
		width, by := 70+rnd.IntN(80), []string{"", "level", "service"}[rnd.IntN(3)]
		size := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[rnd.IntN(4)]
		var buckets []logs.Bucket
		for n := range 1 + rnd.IntN(6) {
			b := logs.Bucket{Start: now().Truncate(size).Add(time.Duration(n) * size), By: map[string]int64{}}
			for range rnd.IntN(12) {
				value, count := anyText(rnd, 20), rnd.Int64N(1<<rnd.IntN(40)+1)
				if by == "level" && rnd.IntN(2) == 0 {
					value = []string{"fatal", "error", "warn", "info", "debug", "trace"}[rnd.IntN(6)]
				}
				b.Count, b.By[value] = b.Count+count, b.By[value]+count
			}
			buckets = append(buckets, b)
		}
		lines := view.HistogramLines(buckets, by, size, now(), width, view.Theme{Unicode: rnd.IntN(2) == 0})
		for _, line := range lines {
			if view.Width(line) > width || strings.ContainsAny(line, "\x1b\u202e\n") {
				t.Fatalf("%d: %d cells of %d:\n%s", i, view.Width(line), width, strings.Join(lines, "\n"))
			}
		}
		all, shown := int64(0), lines[1:]
		if len(buckets) > 1 {
			shown = lines[1 : len(lines)-1]
		}
		for j, at := 0, 0; j < len(buckets); at++ {
			b := buckets[j]
			if b.Count == 0 && strings.Contains(shown[at], " empty, to ") {
				for j < len(buckets) && buckets[j].Count == 0 {
					j++
				}
				continue
			}
			if !strings.Contains(shown[at], fmt.Sprintf(" %d", b.Count)) || b.Count > 0 && strings.TrimRight(shown[at], "█▏▎▍▌▋▊▉▓▒░▚·#%=-:.") == shown[at] {
				t.Fatalf("%d: no bar or not the number of %d lines: %q", i, b.Count, shown[at])
			}
			all += b.Count
			j++
		}
		if len(buckets) > 1 && !strings.HasPrefix(strings.Join(strings.Fields(lines[len(lines)-1]), " "), fmt.Sprintf("total %d", all)) {
			t.Fatalf("%d: the sum is not %d: %s", i, all, lines[len(lines)-1])
		}
	}
}

func TestLongGapsAreOneLine(t *testing.T) {
	var buckets []logs.Bucket
	for i := range 500 {
		b := logs.Bucket{Start: now().Truncate(time.Minute).Add(time.Duration(i-500) * time.Minute)}
		if i%100 == 0 || i%100 == 4 {
			b.Count = int64(8 + i)
		}
		buckets = append(buckets, b)
	}
	lines := view.HistogramLines(buckets, "", time.Minute, now(), 80, view.Theme{Unicode: true})
	// Three empty ones in a row are shown each, and 95 in one line.
	if want := 1 + 5*6 + 1; len(lines) != want {
		t.Errorf("%d lines, want %d:\n%s", len(lines), want, strings.Join(lines, "\n"))
	}
	for at, want := range map[int]string{
		1: "06:49      8  █", 6: "06:54      0  95 empty, to 08:28", 31: "total   2100",
	} {
		if !strings.HasPrefix(lines[at], want) {
			t.Errorf("line %d is %q, want %q", at, lines[at], want)
		}
	}
}

func FuzzLogLines(f *testing.F) {
	f.Add("info", "auth", "sign-in refused", `{"a":1}`, 80)
	f.Add("\x1b[31m", "日本", strings.Repeat("\u0301", 400), `{"a":"b","a":[1]}`, 1)
	f.Fuzz(func(t *testing.T, level, service, message, fields string, width int) {
		l := view.LogLayout{Width: width % 300, Wrap: width%2 == 0, Theme: view.Theme{Unicode: true}}
		for _, line := range l.Lines([]logs.Record{{Time: now(), Level: level, Service: service, Message: message, Fields: json.RawMessage(fields)}}, now()) {
			if strings.ContainsAny(line, "\x1b\n\u202e") || l.Width >= 70 && view.Width(line) > l.Width {
				t.Errorf("%q", line)
			}
		}
	})
}
