package view

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/logs"
)

// leastBar is the room a histogram keeps for its bars, and mostBar what it
// takes, in cells.
const leastBar, mostBar = 16, 100

// longGap is how many empty buckets in a row become one line.
const longGap = 4

// series is one part of every bar of a histogram.
type series struct {
	name  string
	from  []string // values that are counted in it
	total int64
	wide  int // of its column, in cells
	mark  Symbol
	tone  Tone
}

// cells is the part of room that n is of most: nothing is no cell, little is
// one.
func cells(n, most int64, room int) int {
	if n <= 0 || most <= 0 {
		return 0
	}
	return min(max(1, int(float64(n)/float64(most)*float64(room)+0.5)), room)
}

// HistogramTabs is a histogram for scripts: start and count of each bucket,
// or where it is split start, value and count.
func HistogramTabs(buckets []logs.Bucket, split bool) []string {
	var out []string
	for _, b := range buckets {
		start := b.Start.UTC().Format(time.RFC3339)
		if !split {
			out = append(out, start+"\t"+strconv.FormatInt(b.Count, 10))
			continue
		}
		for _, v := range sortedValues(b.By) {
			out = append(out, start+"\t"+orDash(Clean(v))+"\t"+strconv.FormatInt(b.By[v], 10))
		}
		if len(b.By) == 0 {
			out = append(out, start+"\t-\t0")
		}
	}
	return out
}

// HistogramLines draws buckets of a size for a terminal of width cells: time,
// counts and a bar each, with times shown where now is, and the sum below. Many
// empty buckets in a row are one line. by names what they are split by, or is
// empty.
func HistogramLines(buckets []logs.Bucket, by string, size time.Duration, now time.Time, width int, th Theme) []string {
	if len(buckets) == 0 {
		return nil
	}
	layout := bucketLayout(buckets, size, now)
	most, total := int64(0), int64(0)
	for _, b := range buckets {
		most = max(most, b.Count)
		total += b.Count
	}
	times := max(len(layout), len("total"))
	countWidth := max(len("LINES"), len(strconv.FormatInt(total, 10)))
	left := width - times - gap - countWidth - gap
	if width <= 0 {
		left = 1 << 20
	}
	behind := left // the counts of all
	var parts []series
	if by != "" {
		parts = fewer(ranked(buckets, by), left-leastBar, th)
	}
	titles := th.Paint(Pad("TIME", times, false)+strings.Repeat(" ", gap)+Pad("LINES", countWidth, true), Faint)
	for _, p := range parts {
		left -= gap + p.width(th)
		titles += strings.Repeat(" ", gap) + th.Paint(Pad(p.label(th), p.width(th), true), p.tone)
	}
	room := min(max(left, 1), mostBar)
	row := func(head string, n int64, parts []series) string {
		line := th.Paint(Pad(head, times, false), Faint) + strings.Repeat(" ", gap) + Pad(strconv.FormatInt(n, 10), countWidth, true)
		for _, p := range parts {
			line += strings.Repeat(" ", gap) + pad(tally(p.total, th), p.wide-Width(bare(p.total, th)), true)
		}
		return line
	}
	for i := range parts {
		parts[i].wide = parts[i].width(th)
	}
	lines := []string{strings.TrimRight(titles, " ")}
	start := func(b logs.Bucket) string { return b.Start.In(now.Location()).Format(layout) }
	for i := 0; i < len(buckets); i++ {
		b := buckets[i]
		empty := i
		for empty < len(buckets) && buckets[empty].Count == 0 {
			empty++
		}
		if n := empty - i; n >= longGap {
			note := clip(strconv.Itoa(n)+" empty, to "+start(buckets[empty-1]), max(behind, leastBar), th)
			lines = append(lines, row(start(b), 0, nil)+strings.Repeat(" ", gap)+th.Paint(note, Faint))
			i = empty - 1
			continue
		}
		bar := whole(b.Count, most, room, th)
		counted := slices.Clone(parts)
		if by != "" {
			for k := range counted {
				counted[k].total = 0
				for _, v := range counted[k].from {
					counted[k].total += b.By[v]
				}
			}
			bar = drawn(counted, b.Count, most, room, th)
		}
		lines = append(lines, strings.TrimRight(row(start(b), b.Count, counted)+strings.Repeat(" ", gap)+bar, " "))
	}
	if len(buckets) > 1 {
		lines = append(lines, row("total", total, parts))
	}
	return lines
}

// whole is a bar that is not split; where the terminal has them, parts of a
// cell are drawn too.
func whole(n, most int64, room int, th Theme) string {
	if !th.Unicode {
		return th.Paint(strings.Repeat("#", cells(n, most, room)), Notice)
	}
	eighths := cells(n, most, 8*room)
	bar := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return th.Paint(bar, Notice)
}

// tally is the count of a part; none is a dot, so that those stand out that are
// some.
func tally(n int64, th Theme) string {
	if n == 0 {
		return th.Paint(bare(n, th), Faint)
	}
	return bare(n, th)
}

func bare(n int64, th Theme) string {
	if n == 0 {
		return th.Mark(Symbol{"·", "."})
	}
	return strconv.FormatInt(n, 10)
}

// drawn is one bar. What a part has too little for is still seen where there
// is room.
func drawn(bar []series, n, most int64, room int, th Theme) string {
	total := cells(n, most, room)
	var b strings.Builder
	for done, i := int64(0), 0; i < len(bar); i++ {
		from := cellsUpTo(done, n, total)
		done += bar[i].total
		if to := cellsUpTo(done, n, total); to > from {
			b.WriteString(th.Paint(strings.Repeat(th.Mark(bar[i].mark), to-from), bar[i].tone))
		}
	}
	return b.String()
}

// cellsUpTo rounds the end of a part up, so that the first, which matter
// most, do not vanish.
func cellsUpTo(done, n int64, total int) int {
	if n <= 0 {
		return 0
	}
	return min(total, int((done*int64(total)+n-1)/n))
}

func (s series) label(th Theme) string {
	name := s.name
	if Width(name) > 12 {
		name = clip(name, 12, th)
	}
	return th.Mark(s.mark) + " " + name
}

func (s series) width(th Theme) int {
	return max(Width(s.label(th)), len(strconv.FormatInt(s.total, 10)))
}

// ranked gives a series for each value: levels from the worst, others from
// the most frequent.
func ranked(buckets []logs.Bucket, by string) []series {
	totals := map[string]int64{}
	for _, b := range buckets {
		for v, n := range b.By {
			totals[v] += n
		}
	}
	var out []series
	for _, v := range sortedValues(totals) {
		out = append(out, series{name: orDash(Clean(v)), from: []string{v}, total: totals[v]})
	}
	rank := func(s series) int {
		return slices.Index([]string{"fatal", "error", "warn", "info", "debug", "trace", "-"}, s.name)
	}
	slices.SortStableFunc(out, func(a, b series) int {
		if by == "level" {
			return cmp.Compare(rank(a), rank(b))
		}
		return cmp.Compare(b.total, a.total)
	})
	return out
}

func sortedValues(m map[string]int64) []string {
	out := make([]string, 0, len(m))
	for v := range m {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

// fewer gives each series a mark, and puts those together for which the
// terminal has no room.
func fewer(all []series, room int, th Theme) []series {
	marks := []Symbol{{"█", "#"}, {"▓", "%"}, {"▒", "="}, {"░", "-"}, {"▚", ":"}, {"·", "."}}
	tones := []Tone{Bad, Warn, Notice, Good, Normal, Faint}
	byLevel := map[string]Tone{"fatal": Bad, "error": Bad, "warn": Warn, "info": Notice, "debug": Good, "trace": Faint}
	for keep := min(len(all), len(marks)); ; keep-- {
		parts := slices.Clone(all[:keep])
		if keep < len(all) {
			rest := series{name: "other"}
			for _, s := range all[keep:] {
				rest.from, rest.total = append(rest.from, s.from...), rest.total+s.total
			}
			parts = append(parts, rest)
		}
		used := 0
		for i := range min(len(parts), len(marks)) {
			parts[i].mark, parts[i].tone = marks[i], tones[i]
			if t, ok := byLevel[parts[i].name]; ok {
				parts[i].tone = t
			}
			used += gap + parts[i].width(th)
		}
		if len(parts) <= len(marks) && used <= room || keep == 0 {
			return parts
		}
	}
}

// bucketLayout writes as much of a time as tells buckets apart.
func bucketLayout(buckets []logs.Bucket, size time.Duration, now time.Time) string {
	first, last := buckets[0].Start.In(now.Location()), buckets[len(buckets)-1].Start.In(now.Location())
	layout := "15:04"
	switch {
	case size%(24*time.Hour) == 0 && first.Hour() == 0 && first.Minute() == 0 && last.Hour() == 0:
		layout = ""
	case size%time.Minute != 0:
		layout = "15:04:05"
	}
	date := []string{"", "01-02", "2006-01-02"}[max(dateNeed(first, now), dateNeed(last, now))]
	if layout == "" && date == "" {
		date = "01-02"
	}
	return strings.TrimSpace(date + " " + layout)
}
