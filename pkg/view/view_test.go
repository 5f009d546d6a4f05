package view_test

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/view"
)

func TestCleanShowsWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"alice":               "alice",
		"ノート 🙂":               "ノート 🙂",
		"\x1b[31mred":         `\x1b[31mred`,
		"\x1b]0;title\a":      `\x1b]0;title\x07`,
		"a\r\nb\tc":           `a\x0d\x0ab\x09c`,
		"\u009b31m":           `\u009b31m`,
		"evil\u202egnp.exe":   `evil\u202egnp.exe`,
		"zero\u200bwidth":     `zero\u200bwidth`,
		"tag\U000e0041":       `tag\U000e0041`,
		"broken\xff\xfe":      `broken\xff\xfe`,
		"line\u2028separator": `line\u2028separator`,
		"\x7f":                `\x7f`,
	} {
		if got := view.Clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanLeavesNothingToObey(f *testing.F) {
	for _, s := range []string{"alice", "\x1b[2J", "\u202e", "\xff", "日本", "\u009b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := view.Clean(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%q became invalid UTF-8 %q", s, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q kept %U", s, r)
			}
		}
		for width := range 6 {
			if fit := view.Fit(got, width); view.Width(fit) > width {
				t.Fatalf("%q cut to %d cells takes %d: %q", got, width, view.Width(fit), fit)
			}
		}
	})
}

func TestWideCharactersTakeTwoCells(t *testing.T) {
	if got := view.Width("ノート"); got != 6 {
		t.Errorf("width %d, want 6", got)
	}
	for width, want := range map[int]string{0: "", 1: "…", 2: "…", 3: "ノ…", 4: "ノ…", 5: "ノー…", 6: "ノート", 9: "ノート"} {
		if got := view.Fit("ノート", width); got != want {
			t.Errorf("cut to %d: got %q, want %q", width, got, want)
		}
	}
	if got := view.Pad("ノ", 4, false) + "|" + view.Pad("ノ", 4, true); got != "ノ  |  ノ" {
		t.Errorf("padded: %q", got)
	}
}

func TestBytesHaveThreeDigits(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 10188: "9.9 KiB", 10240: "10 KiB",
		1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 123 << 20: "123 MiB", 1023 << 20: "1.0 GiB", 5 << 40: "5.0 TiB",
		math.MaxInt64: "8.0 EiB", -1536: "-1.5 KiB", math.MinInt64: "-8.0 EiB",
	} {
		if got := view.Bytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0s", 42 * time.Second: "42s", 3*time.Minute + 59*time.Second: "3m", time.Hour: "1h", 80 * time.Minute: "1h 20m",
		11 * time.Hour: "11h", 52 * time.Hour: "2d 4h", 90 * 24 * time.Hour: "90d", -time.Minute: "-1m",
	} {
		if got := view.Duration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "now", 999 * time.Millisecond: "now", time.Second: "1s ago", 3 * time.Minute: "3m ago", -time.Second: "now", -time.Hour: "in 1h",
	} {
		if got := view.Ago(now.Add(-d), now); got != want {
			t.Errorf("%v ago: got %s, want %s", d, got, want)
		}
	}
	if got := view.Ago(time.Time{}, now); got != "never" {
		t.Errorf("no time: %s", got)
	}
	if got := view.Until(now.Add(2*time.Hour), now) + ", " + view.Until(now, now); got != "in 2h, now" {
		t.Errorf("until: %s", got)
	}
}

type thing struct{ name, what string }

func columns() []view.Column[thing] {
	return []view.Column[thing]{
		{Title: "NAME", Cell: func(v thing, _ time.Time) view.Cell { return view.Cell{Text: v.name, Tone: view.Strong} }},
		{Title: "N", Right: true, Cell: func(v thing, _ time.Time) view.Cell { return view.Size(int64(len(v.what)) << 10) }},
		{Title: "WHAT", Shrink: true, Cell: func(v thing, _ time.Time) view.Cell {
			return view.Cell{Text: v.what, Symbol: view.Full, Tone: view.Good}
		}},
	}
}

func TestTableIsAlignedByCells(t *testing.T) {
	items := []thing{{"ノート", "x"}, {"a\x1b[1m", "something long enough to be cut"}}
	got := view.Lines(columns(), items, time.Now(), 40, view.Theme{Unicode: true})
	want := []string{
		"NAME            N  WHAT",
		"ノート    1.0 KiB  ● x",
		`a\x1b[1m   31 KiB  ● something long eno…`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, l := range got {
		if view.Width(l) > 40 {
			t.Errorf("%q is wider than the terminal", l)
		}
	}
}

func TestColourIsNeverTheOnlyCarrier(t *testing.T) {
	items := []thing{{"a", "up"}}
	plain := view.Lines(columns(), items, time.Now(), 0, view.Theme{Unicode: true})
	colored := view.Lines(columns(), items, time.Now(), 0, view.Theme{Unicode: true, Color: true})
	if !strings.Contains(colored[1], "\x1b[") {
		t.Fatalf("no colour in %q", colored[1])
	}
	for i := range colored {
		if got := strip(colored[i]); got != plain[i] {
			t.Errorf("without colours %q, want %q", got, plain[i])
		}
	}
	ascii := view.Lines(columns(), []thing{{"a", "something that is far too long"}}, time.Now(), 30, view.Theme{})
	for _, l := range ascii {
		for _, r := range l {
			if r > 0x7f {
				t.Errorf("%q holds %q in a locale without it", l, r)
			}
		}
	}
}

func strip(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == 0x1b {
			for ; i < len(s) && s[i] != 'm'; i++ {
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func TestScriptsGetExactValuesAndNoTitles(t *testing.T) {
	got := view.Tabs(columns(), []thing{{"a\tb", "xyz"}}, time.Now())
	if diff := cmp.Diff([]string{`a\x09b` + "\t3072\txyz"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPagesWrapOrCutWhatIsLong(t *testing.T) {
	v := thing{"alice", "words that take more than one line of it"}
	th := view.Theme{}
	got := view.PageLines(columns()[2:], v, time.Now(), 24, false, th)
	if diff := cmp.Diff([]string{"what  * words that take", "      more than one line", "      of it"}, got); diff != "" {
		t.Error(diff)
	}
	got = view.PageLines(columns()[2:], v, time.Now(), 24, true, th)
	if diff := cmp.Diff([]string{"what  * words that take~"}, got); diff != "" {
		t.Error(diff)
	}
	if got = view.PageLines(columns()[2:], v, time.Now(), 0, true, th); len(got) != 1 || !strings.HasSuffix(got[0], "of it") {
		t.Errorf("without a width: %q", got)
	}
}

func TestNothingIsSaidOfADeadTor(t *testing.T) {
	for process, want := range map[tor.ProcessState]bool{tor.ProcessRunning: true, tor.ProcessHung: true, tor.ProcessStopped: false, tor.ProcessMissing: false, tor.ProcessFailed: false} {
		s := tor.Status{Process: process, Reason: "away", Message: "away", RxBytes: 5}
		page := strings.Join(view.PageLines(view.Tor().At(view.Page), s, time.Now(), 80, false, view.Theme{}), "\n")
		for _, row := range []string{"network ", "directory ", "circuit ", "read ", "streams "} {
			if got := strings.Contains("\n"+page, "\n"+row); got != want {
				t.Errorf("%s: row %q is there: %t\n%s", process, row, got, page)
			}
		}
		if strings.Contains(page, "message") {
			t.Errorf("the reason is said twice:\n%s", page)
		}
	}
}
