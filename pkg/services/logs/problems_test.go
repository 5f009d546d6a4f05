package logs

import (
	"strings"
	"testing"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/logstore"
	"vpnd/pkg/logtail"
)

func TestProblemsAreNamedTheGravestFirst(t *testing.T) {
	full := fault.New(fault.Unavailable, "the disk that holds /x is full; nothing was lost").WithHint("free space at /x")
	skipped := func(reasons ...string) []api.File {
		var out []api.File
		for i, r := range reasons {
			out = append(out, api.File{Path: "/var/log/" + string(rune('a'+i)), Skipped: r})
		}
		return out
	}
	lag := []api.File{{Path: "/var/log/slow", LagMs: 61_500}, {Path: "/var/log/quick", LagMs: 3}}
	for _, tc := range []struct {
		name    string
		files   []api.File
		lag     int64
		damaged []string
		over    int64
		refused *fault.Error
		want    []string
		hint    string
	}{
		{name: "nothing", lag: 60_000, files: skipped("symbolic link", "named pipe", "socket", "device", "not a regular file", "refused by configuration")},
		{name: "disk full", refused: full, want: []string{"lines are not taken in: the disk that holds /x is full; nothing was lost"}, hint: "free space at /x"},
		{name: "one day", damaged: []string{"2026-01-31"}, want: []string{"the lines of 2026-01-31 do not answer: their file is damaged and was set aside"}, hint: "/s/days"},
		{name: "twice, and the positions", damaged: []string{"2026-01-31", "2026-01-31", ""}, want: []string{"the lines of 2026-01-31 do not"}},
		{name: "days", damaged: []string{"2026-01-31", "2026-02-01"}, want: []string{"the lines of 2026-01-31, 2026-02-01 do not answer"}, hint: "/s/days"},
		{name: "unreadable", files: skipped("permission denied", "named pipe", "no such file or directory"), want: []string{"/var/log/a, /var/log/c cannot be read: permission denied"}, hint: "logs.dirs"},
		{name: "many", files: skipped("permission denied", "permission denied", "permission denied", "permission denied", "permission denied"), want: []string{"/var/log/a, /var/log/b, /var/log/c and 2 more cannot be read"}},
		{name: "behind", files: lag, lag: 61_500, want: []string{"lines are taken in 1m1s late: /var/log/slow is the furthest behind"}, hint: "vpnctl logs status"},
		{name: "too much", over: 1, want: []string{"what is kept takes 1 MiB more than logs.max_size_mib allows"}, hint: "raise logs.max_size_mib"},
		{name: "all", files: append(lag, skipped("permission denied")...), lag: 61_500, damaged: []string{"2026-01-31"}, refused: full,
			want: []string{"lines are not taken in", "the lines of 2026-01-31", "/var/log/a cannot be read"}},
	} {
		kept := &logstore.Status{Over: tc.over}
		for _, d := range tc.damaged {
			a := logstore.Damaged{File: d, Day: logstore.NoDay}
			if date, err := time.Parse(time.DateOnly, d); err == nil {
				a.Day = logstore.DayOf(date)
			}
			kept.Aside = append(kept.Aside, a)
		}
		got := problems(&api.Status{Files: tc.files, LagMs: tc.lag, Store: "/s"}, kept, tc.refused)
		if len(got) != len(tc.want) {
			t.Errorf("%s: %+v", tc.name, got)
			continue
		}
		for i, p := range got {
			if !strings.HasPrefix(p.What, tc.want[i]) || p.Hint == "" {
				t.Errorf("%s: %+v", tc.name, p)
			}
		}
		if len(got) > 0 && !strings.Contains(got[0].Hint, tc.hint) {
			t.Errorf("%s: hint %q", tc.name, got[0].Hint)
		}
	}
}

// TestALineWithoutItsEndIsNoLag has a writer die in the middle of a line.
func TestALineWithoutItsEndIsNoLag(t *testing.T) {
	m := meter{files: map[string]*progress{}}
	start := time.Now()
	f := logtail.FileStat{Path: "a", Name: "a", Size: 200, Kept: 100}
	for s := range 120 {
		m.look(start.Add(time.Duration(s)*time.Second), logtail.Snapshot{Files: []logtail.FileStat{f}})
	}
	end := start.Add(2 * time.Minute)
	if idle, busy := m.lag(end, f, true), m.lag(end, f, false); idle != 0 || busy != 120_000 {
		t.Errorf("lag %d while nothing is read, %d while something is", idle, busy)
	}
	if got := m.lag(start.Add(2*time.Second), f, true); got == 0 {
		t.Error("what has just come is no lag")
	}
	f.Size = 300
	m.look(end, logtail.Snapshot{Files: []logtail.FileStat{f}})
	if got := m.lag(end.Add(time.Second), f, true); got == 0 {
		t.Error("a line that grows is no lag")
	}
}
