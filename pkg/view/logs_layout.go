package view

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"vpnd/pkg/api/logs"
)

// How wide the parts of a line may become before what follows is pushed.
const (
	maxService = 14
	maxSaid    = 40
	levelWidth = 5
	leastTail  = 24 // of message and fields, on the narrowest terminal
	fewLines   = 3  // of the terminal, that a line takes where it is cut
)

// LogLayout aligns log lines for a terminal. Its columns only grow, so lines
// that come one by one stay aligned. The zero value cuts nothing.
type LogLayout struct {
	Width int  // of the terminal, in cells; 0 is endless
	Wrap  bool // show all of a line, and its ids
	Theme Theme

	dates         int // 0: of today, 1: of this year, 2: of any
	service, said int
}

// span is text in one colour, harmless already.
type span struct {
	text string
	tone Tone
}

// Lines aligns records under those before. Times are shown where now is.
func (l *LogLayout) Lines(records []logs.Record, now time.Time) []string {
	for _, r := range records {
		l.dates = max(l.dates, dateNeed(r.Time.In(now.Location()), now))
		l.service = max(l.service, 1, min(Width(l.clean(orDash(r.Service))), maxService))
		l.said = max(l.said, min(Width(l.clean(LogText(r))), l.saidLimit()))
	}
	var out []string
	for _, r := range records {
		out = append(out, l.lines(r, now)...)
	}
	return out
}

func (l *LogLayout) lines(r logs.Record, now time.Time) []string {
	when := r.Time.In(now.Location()).Format([]string{"15:04:05.000", "01-02 15:04:05", "2006-01-02 15:04:05"}[l.dates])
	service := clip(l.clean(orDash(r.Service)), l.service, l.Theme)
	level := strings.ToUpper(clip(l.clean(orDash(r.Level)), levelWidth, l.Theme))
	head := []span{
		{when + " ", Faint}, {Pad(level, levelWidth, false) + " ", LogTone(r.Level)}, {Pad(service, l.service, false) + "  ", Normal},
	}
	indent := 0
	for _, s := range head {
		indent += Width(s.text)
	}
	said := l.clean(LogText(r))
	tone := LogTone(r.Level)
	if tone != Bad && tone != Warn {
		tone = Normal
	}
	fields := LogFields(r, l.Wrap)
	if len(fields) > 0 {
		said = Pad(said, l.said, false)
	}
	tail := []span{{said, tone}}
	for _, f := range fields {
		gap := " "
		if len(tail) == 1 {
			gap = "  "
		}
		tail = append(tail, span{gap, Normal}, span{l.clean(f.Key) + "=", Faint}, span{l.clean(quoted(f.Value)), Normal})
	}
	if l.Width <= 0 {
		return []string{l.paint(append(head, tail...))}
	}
	hang := min(indent, l.Width/3)
	parts := wrapSpans(tail, max(l.Width-indent, leastTail), max(l.Width-hang, leastTail))
	if !l.Wrap && len(parts) > fewLines {
		last := slices.Concat(parts[fewLines-1:]...)
		parts = append(parts[:fewLines-1], cutSpans(last, max(l.Width-hang, leastTail), l.Theme))
	}
	lines := []string{l.paint(append(head, parts[0]...))}
	for _, p := range parts[1:] {
		lines = append(lines, strings.Repeat(" ", hang)+l.paint(p))
	}
	return lines
}

// saidLimit keeps place for fields beside what is said.
func (l *LogLayout) saidLimit() int {
	if l.Width <= 0 {
		return maxSaid
	}
	return min(maxSaid, max(l.Width/3, leastTail/2))
}

// clean makes text harmless. Where lines are cut, the megabyte that is not
// shown costs nothing.
func (l *LogLayout) clean(s string) string {
	if most := 8 * l.Width; !l.Wrap && most > 0 && len(s) > most {
		for !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most] + "…"
	}
	s = Clean(s)
	if !l.Theme.Unicode {
		s = ascii(s)
	}
	return s
}

func (l *LogLayout) paint(spans []span) string {
	var b strings.Builder
	for i, s := range spans {
		text := s.text
		if i == len(spans)-1 {
			text = strings.TrimRight(text, " ")
		}
		b.WriteString(l.Theme.Paint(text, s.tone))
	}
	return b.String()
}

// dateNeed tells how much of its date a time needs.
func dateNeed(t, now time.Time) int {
	switch {
	case t.Year() != now.Year():
		return 2
	case t.YearDay() != now.YearDay():
		return 1
	}
	return 0
}

// take splits s after at most width cells. It counts characters by
// themselves, which is never too few cells, and takes no time for many
// characters without a width.
func take(s string, width int) (head, rest string, used int) {
	marks := 0
	for i, r := range s {
		w := 1
		if r >= 0x7f {
			w = Width(string(r))
		}
		if w == 0 {
			marks++
		}
		if used+w > width || marks > 4*width+8 {
			return s[:i], s[i:], used
		}
		used += w
	}
	return s, "", used
}

func clip(s string, width int, th Theme) string {
	out := cutSpans([]span{{s, Normal}}, width, th)
	var b strings.Builder
	for _, p := range out {
		b.WriteString(p.text)
	}
	return b.String()
}

// cutSpans keeps what fits into width cells; the last becomes an ellipsis where
// something was cut.
func cutSpans(spans []span, width int, th Theme) []span {
	more := "…"
	if !th.Unicode {
		more = "~"
	}
	fits := func(width int) (out []span, all bool) {
		for _, s := range spans {
			head, rest, used := take(s.text, width)
			out = append(out, span{head, s.tone})
			if width -= used; rest != "" {
				return out, false
			}
		}
		return out, true
	}
	if out, all := fits(width); all {
		return out
	}
	out, _ := fits(width - 1)
	return append(out, span{more, Faint})
}

func cellsOf(s string) int {
	_, _, used := take(s, 1<<30)
	return used
}

// wrapSpans breaks spans into lines of width cells, the first of them of
// first, before a span where that leaves a line with something on it.
func wrapSpans(spans []span, first, width int) [][]span {
	lines := [][]span{nil}
	left := first
	next := func() { lines, left = append(lines, nil), width }
	for i := 0; i < len(spans); i++ {
		s := spans[i]
		unit := cellsOf(s.text)
		if strings.HasSuffix(s.text, "=") && i+1 < len(spans) { // a key stays with its value
			unit += cellsOf(spans[i+1].text)
		}
		if unit > left && unit <= width && len(lines[len(lines)-1]) > 0 {
			next()
		}
		for text := s.text; text != ""; {
			if len(lines) > 1 && len(lines[len(lines)-1]) == 0 && strings.TrimSpace(text) == "" {
				break // no gap begins a line
			}
			head, rest, used := take(text, left)
			if head == "" && left >= leastTail { // no width would do
				head, rest = rest, ""
			}
			if head != "" {
				lines[len(lines)-1] = append(lines[len(lines)-1], span{head, s.tone})
				left -= used
			}
			if text = rest; text != "" {
				next()
			}
		}
	}
	return lines
}
