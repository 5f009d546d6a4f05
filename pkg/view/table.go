package view

import (
	"strings"
	"time"
)

// Detail says how much of a thing is shown.
type Detail int

// The details: what fits a narrow terminal, what -o wide adds, and what only a
// single thing's page shows.
const (
	Narrow Detail = iota
	Wide
	Page
)

// Column is one property of a noun.
type Column[T any] struct {
	Title  string
	Label  string // on a page, where it is not the title
	Detail Detail
	Right  bool // numbers
	Shrink bool // may be cut to fit the terminal
	Cell   func(v T, now time.Time) Cell
}

// Table is how a noun is shown.
type Table[T any] struct {
	Noun    string         // one of them, in words
	Name    func(T) string // what a person types to name it
	Columns []Column[T]
}

// At gives the columns of a detail.
func (t Table[T]) At(d Detail) []Column[T] {
	var out []Column[T]
	for _, c := range t.Columns {
		if c.Detail <= d {
			out = append(out, c)
		}
	}
	return out
}

// With gives a table with more columns at its end.
func (t Table[T]) With(more ...Column[T]) Table[T] {
	t.Columns = append(append([]Column[T](nil), t.Columns...), more...)
	return t
}

// gap is between columns, in cells.
const gap = 2

// Lines aligns items for a terminal of width cells (0: as wide as need be):
// a line of titles, then one line per item.
func Lines[T any](cols []Column[T], items []T, now time.Time, width int, th Theme) []string {
	rows := make([][]Cell, len(items))
	for i, v := range items {
		rows[i] = make([]Cell, len(cols))
		for j, c := range cols {
			rows[i][j] = c.Cell(v, now)
		}
	}
	widths := make([]int, len(cols))
	for j, c := range cols {
		widths[j] = Width(c.Title)
		for i := range rows {
			widths[j] = max(widths[j], Width(th.words(rows[i][j])))
		}
	}
	shrink(cols, widths, width)
	lines := make([]string, 0, len(rows)+1)
	titles := make([]string, len(cols))
	for j, c := range cols {
		titles[j] = th.Paint(Pad(Fit(c.Title, widths[j]), widths[j], c.Right), Faint)
	}
	lines = append(lines, join(titles))
	for _, row := range rows {
		out := make([]string, len(cols))
		for j, c := range cols {
			s := th.words(row[j])
			if Width(s) > widths[j] {
				s = Fit(s, widths[j])
				if !th.Unicode {
					s = ascii(s)
				}
			}
			last := j == len(cols)-1 && !c.Right
			painted := th.Paint(s, row[j].Tone)
			if !last {
				painted = pad(painted, widths[j]-Width(s), c.Right)
			}
			out[j] = painted
		}
		lines = append(lines, join(out))
	}
	return lines
}

// pad fills outside of the colour, so that nothing is underlined or trimmed
// wrongly.
func pad(s string, n int, right bool) string {
	if n <= 0 {
		return s
	}
	if right {
		return strings.Repeat(" ", n) + s
	}
	return s + strings.Repeat(" ", n)
}

func join(cells []string) string {
	return strings.TrimRight(strings.Join(cells, strings.Repeat(" ", gap)), " ")
}

// shrink takes from the widest columns that allow it until the line fits.
func shrink[T any](cols []Column[T], widths []int, width int) {
	if width <= 0 {
		return
	}
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := -1
		for j, c := range cols {
			if c.Shrink && widths[j] > max(8, Width(c.Title)) && (widest < 0 || widths[j] > widths[widest]) {
				widest = j
			}
		}
		if widest < 0 {
			return // the terminal wraps the rest; nothing is hidden
		}
		widths[widest]--
	}
}

// Tabs is one line per item for scripts: exact values, separated by tabs.
func Tabs[T any](cols []Column[T], items []T, now time.Time) []string {
	lines := make([]string, len(items))
	for i, v := range items {
		cells := make([]string, len(cols))
		for j, c := range cols {
			cells[j] = c.Cell(v, now).Exact()
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return lines
}

// PageLines shows one thing on a terminal of width cells (0: as wide as need
// be): a line per property that it has. What is longer goes on below itself,
// or is cut where every property has one line.
func PageLines[T any](cols []Column[T], v T, now time.Time, width int, cut bool, th Theme) []string {
	titles := 0
	for _, c := range cols {
		titles = max(titles, Width(c.label()))
	}
	var lines []string
	for _, c := range cols {
		cell := c.Cell(v, now)
		if cell.Text == "" || cell.Text == "-" {
			continue
		}
		words := []string{th.words(cell)}
		room := width - titles - gap
		switch {
		case width <= 0 || Width(words[0]) <= room:
		case cut:
			words[0] = Fit(words[0], room)
			if !th.Unicode {
				words[0] = ascii(words[0])
			}
		default:
			words = wrap(words[0], room)
		}
		for i, w := range words {
			title := ""
			if i == 0 {
				title = c.label()
			}
			lines = append(lines, th.Paint(Pad(title, titles, false), Faint)+strings.Repeat(" ", gap)+th.Paint(w, cell.Tone))
		}
	}
	return lines
}

// label is the title of a column on a page.
func (c Column[T]) label() string {
	if c.Label != "" {
		return c.Label
	}
	return strings.ToLower(c.Title)
}

// PageTabs is PageLines for scripts: title and exact value, separated by a tab.
func PageTabs[T any](cols []Column[T], v T, now time.Time) []string {
	lines := make([]string, len(cols))
	for i, c := range cols {
		lines[i] = c.label() + "\t" + c.Cell(v, now).Exact()
	}
	return lines
}
