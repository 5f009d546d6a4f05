package view

import (
	"cmp"
	"strconv"
	"time"

	"vpnd/pkg/api/logs"
)

// LogStatus is how the state of the log service is shown, with so many
// problems.
func LogStatus(problems int) Table[logs.Status] {
	type s = logs.Status
	t := Table[s]{
		Noun: "log service",
		Name: func(s) string { return "logs" },
		Columns: []Column[s]{
			{Title: "STATE", Cell: func(v s, _ time.Time) Cell {
				if v.Problem == "" {
					return Cell{Text: "ok", Symbol: Check, Tone: Good}
				}
				return Cell{Text: v.Problem, Symbol: Cross, Tone: Bad}
			}},
			{Title: "WHAT TO DO", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.Hint) }},
		},
	}
	for i := 1; i < problems; i++ {
		t = t.With(
			Column[s]{Title: "ALSO", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Cell{Text: v.Problems[i].What, Symbol: Cross, Tone: Bad} }},
			Column[s]{Title: "WHAT TO DO", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.Problems[i].Hint) }})
	}
	return t.With(logFigures()...)
}

// logFigures are the measures of the log service.
func logFigures() []Column[logs.Status] {
	type s = logs.Status
	return []Column[s]{
		{Title: "LINES", Cell: func(v s, _ time.Time) Cell { return Number(v.Rows) }},
		{Title: "ON DISK", Cell: func(v s, _ time.Time) Cell { return Size(v.Bytes) }},
		{Title: "OLDEST", Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.Oldest, now) }},
		{Title: "NEWEST", Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.Newest, now) }},
		{Title: "RATE", Cell: func(v s, _ time.Time) Cell {
			return Cell{Text: strconv.FormatFloat(v.Rate, 'f', 1, 64) + " lines/s", Raw: strconv.FormatFloat(v.Rate, 'f', -1, 64)}
		}},
		{Title: "BEHIND", Cell: func(v s, _ time.Time) Cell { return behind(v.LagMs) }},
		{Title: "LINES IN", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Number(v.LinesIn) }},
		{Title: "BYTES IN", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Size(v.BytesIn) }},
		{Title: "PAUSED", Detail: Page, Cell: func(v s, _ time.Time) Cell { return delay(v.PausedMs) }},
		{Title: "SLOW QUERIES", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Number(v.SlowQueries) }},
		{Title: "FOLLOWERS", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Number(v.Followers) }},
		{Title: "FILES", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Text(logFileCounts(v)) }},
	}
}

// logFileCounts says how many files are read, and how many are not.
func logFileCounts(v logs.Status) string {
	skipped := v.MoreSkipped
	for _, f := range v.Files {
		if f.Skipped != "" {
			skipped++
		}
	}
	text := strconv.Itoa(len(v.Files)-skipped+v.MoreSkipped) + " read"
	if skipped > 0 {
		text += ", " + strconv.Itoa(skipped) + " not"
	}
	return text
}

// LogDays is how the files of the days are shown.
func LogDays() Table[logs.Day] {
	type d = logs.Day
	return Table[d]{
		Noun: "day",
		Name: func(v d) string { return v.Day },
		Columns: []Column[d]{
			{Title: "DAY", Cell: func(v d, _ time.Time) Cell { return Cell{Text: v.Day, Tone: Strong} }},
			{Title: "LINES", Right: true, Cell: func(v d, _ time.Time) Cell { return Number(v.Rows) }},
			{Title: "ON DISK", Right: true, Cell: func(v d, _ time.Time) Cell { return Size(v.Bytes) }},
			{Title: "STATE", Shrink: true, Cell: func(v d, _ time.Time) Cell {
				if v.Damaged == "" {
					return Dim("ok")
				}
				return Cell{Text: "damaged: " + v.Damaged, Symbol: Cross, Tone: Bad}
			}},
		},
	}
}

// LogFiles is how the files that are read are shown.
func LogFiles() Table[logs.File] {
	type f = logs.File
	return Table[f]{
		Noun: "file",
		Name: func(v f) string { return v.Path },
		Columns: []Column[f]{
			{Title: "FILE", Shrink: true, Cell: func(v f, _ time.Time) Cell { return Text(v.Path) }},
			{Title: "READ", Right: true, Cell: func(v f, _ time.Time) Cell { return Size(v.Offset) }},
			{Title: "OF", Right: true, Cell: func(v f, _ time.Time) Cell { return Size(v.Size) }},
			{Title: "BEHIND", Right: true, Cell: func(v f, _ time.Time) Cell { return behind(v.LagMs) }},
			{Title: "SKIPPED", Shrink: true, Cell: func(v f, _ time.Time) Cell {
				c := Cell{Text: cmp.Or(v.Skipped, "-"), Tone: Faint}
				if v.Skipped != "" {
					c.Tone = Warn
				}
				return c
			}},
		},
	}
}

// lagging is when being behind is worth a look, in milliseconds.
const lagging = 5000

func behind(ms int64) Cell {
	c := delay(ms)
	switch {
	case ms == 0:
		c.Text, c.Tone = "-", Faint
	case ms >= lagging:
		c.Tone = Warn
	}
	return c
}

func delay(ms int64) Cell {
	text := strconv.FormatInt(ms, 10) + " ms"
	if d := time.Duration(ms) * time.Millisecond; d >= 10*time.Second {
		text = Duration(d)
	}
	return Cell{Text: text, Raw: strconv.FormatInt(ms, 10)}
}

// PurgedDay is how many lines of a day were, or would be, removed.
type PurgedDay struct {
	Day  string
	Rows int64
}

// PurgedDays is how they are shown.
func PurgedDays() Table[PurgedDay] {
	return Table[PurgedDay]{
		Noun: "day",
		Name: func(v PurgedDay) string { return v.Day },
		Columns: []Column[PurgedDay]{
			{Title: "DAY", Cell: func(v PurgedDay, _ time.Time) Cell { return Cell{Text: v.Day, Tone: Strong} }},
			{Title: "LINES", Right: true, Cell: func(v PurgedDay, _ time.Time) Cell { return Number(v.Rows) }},
		},
	}
}
