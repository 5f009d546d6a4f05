package view

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/logs"
)

// Logs is how log lines are shown to scripts. People read them through a
// LogLayout.
func Logs() Table[logs.Record] {
	type r = logs.Record
	return Table[r]{
		Noun: "line",
		Name: func(v r) string { return v.ID },
		Columns: []Column[r]{
			{Title: "TIME", Cell: func(v r, _ time.Time) Cell { return Text(v.Time.UTC().Format(time.RFC3339Nano)) }},
			{Title: "LEVEL", Cell: func(v r, _ time.Time) Cell { return Cell{Text: orDash(v.Level), Tone: LogTone(v.Level)} }},
			{Title: "SERVICE", Cell: func(v r, _ time.Time) Cell { return Or(v.Service) }},
			{Title: "TEXT", Cell: func(v r, _ time.Time) Cell { return Or(LogText(v)) }},
			{Title: "FIELDS", Cell: func(v r, _ time.Time) Cell { return Or(pairs(LogFields(v, false))) }},
			{Title: "SESSION", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Or(v.Session) }},
			{Title: "REQUEST", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Or(v.RequestID) }},
			{Title: "FILE", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Or(v.File) }},
			{Title: "ID", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Dim(v.ID) }},
		},
	}
}

// LogText is what a line says: its event, its message, or both.
func LogText(v logs.Record) string {
	switch {
	case v.Event == "" || v.Event == v.Message:
		return v.Message
	case v.Message == "":
		return v.Event
	}
	return v.Event + ": " + v.Message
}

// LogTone is the colour of a level.
func LogTone(level string) Tone {
	switch level {
	case "fatal", "error":
		return Bad
	case "warn":
		return Warn
	case "info":
		return Notice
	}
	return Faint
}

// LogField is one key of a line.
type LogField struct {
	Key   string
	Value string          // as text; arrays as JSON
	JSON  json.RawMessage // as it was written
}

// LogFields gives the keys of a line in their order: who it is about, then
// every other; all adds the ids and the file.
func LogFields(v logs.Record, all bool) []LogField {
	var out []LogField
	known := func(key, value string) {
		if value != "" {
			out = append(out, LogField{Key: key, Value: value})
		}
	}
	known("user", v.User)
	known("device", v.Device)
	out = append(out, MoreLogFields(v.Fields)...)
	if all {
		known("session", v.Session)
		known("request_id", v.RequestID)
		known("file", v.File)
		known("id", v.ID)
	}
	if v.Cut {
		out = append(out, LogField{Key: "cut", Value: "true"})
	}
	return out
}

// MoreLogFields gives the members of a JSON object in their order; a key may
// be there twice. What is no object has none.
func MoreLogFields(raw json.RawMessage) []LogField {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	var out []LogField
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return out
		}
		f := LogField{}
		f.Key, _ = key.(string)
		if dec.Decode(&f.JSON) != nil {
			return out
		}
		if json.Unmarshal(f.JSON, &f.Value) != nil || string(f.JSON) == "null" {
			f.Value = string(f.JSON)
		}
		out = append(out, f)
	}
	return out
}

// pairs writes fields as key=value.
func pairs(fields []LogField) string {
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i] = f.Key + "=" + quoted(f.Value)
	}
	return strings.Join(parts, " ")
}

// quoted keeps a value apart from what follows it.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\r\n\"=") && !strings.HasPrefix(s, "[") {
		return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
	}
	return s
}

// LogNumbers is how a count is shown.
func LogNumbers() Table[logs.Number] {
	text := func(v logs.Number) string { return strconv.FormatInt(v.Count, 10) }
	return Table[logs.Number]{
		Noun: "count", Name: text,
		Columns: []Column[logs.Number]{{Title: "COUNT", Cell: func(v logs.Number, _ time.Time) Cell { return Text(text(v)) }}},
	}
}

// LogGroups is how counts by the values of fields are shown. With bars every
// count is drawn too, as a part of most.
func LogGroups(fields []string, bars bool, most int64) Table[logs.Group] {
	type g = logs.Group
	t := Table[g]{Noun: "group", Name: func(v g) string { return strings.Join(v.Values, "/") }}
	for i, f := range fields {
		t.Columns = append(t.Columns, Column[g]{Title: strings.ToUpper(Clean(f)), Shrink: true, Cell: func(v g, _ time.Time) Cell {
			if i >= len(v.Values) || v.Values[i] == "" {
				return Dim("-")
			}
			c := Cell{Text: v.Values[i], Tone: Strong}
			if f == "level" {
				c.Tone = LogTone(c.Text)
			}
			return c
		}})
	}
	t.Columns = append(t.Columns, Column[g]{Title: "COUNT", Right: true, Cell: func(v g, _ time.Time) Cell { return Number(v.Count) }})
	if bars {
		t.Columns = append(t.Columns, Column[g]{Title: "SHARE OF THE MOST", Cell: func(v g, _ time.Time) Cell {
			return Cell{Text: strings.Repeat("█", cells(v.Count, most, 20)), Tone: Notice}
		}})
	}
	t.Columns = append(t.Columns,
		Column[g]{Title: "FIRST", Detail: Wide, Cell: func(v g, now time.Time) Cell { return Since(v.First, now) }},
		Column[g]{Title: "LAST", Cell: func(v g, now time.Time) Cell { return Since(v.Last, now) }})
	return t
}

// LogBuckets is how the buckets of a histogram are named; they are drawn by
// HistogramLines.
func LogBuckets() Table[logs.Bucket] {
	return Table[logs.Bucket]{Noun: "bucket", Name: func(v logs.Bucket) string { return v.Start.UTC().Format(time.RFC3339) }}
}

// LogKeys is how the fields of lines are shown.
func LogKeys() Table[logs.Field] {
	type f = logs.Field
	return Table[f]{
		Noun: "field",
		Name: func(v f) string { return v.Name },
		Columns: []Column[f]{
			{Title: "FIELD", Shrink: true, Cell: func(v f, _ time.Time) Cell { return Cell{Text: v.Name, Tone: Strong} }},
			{Title: "LINES", Right: true, Cell: func(v f, _ time.Time) Cell { return Number(v.Count) }},
		},
	}
}

// LogServices is how those who write are shown.
func LogServices() Table[logs.ServiceLines] {
	type s = logs.ServiceLines
	return Table[s]{
		Noun: "service",
		Name: func(v s) string { return v.Name },
		Columns: []Column[s]{
			{Title: "SERVICE", Shrink: true, Cell: func(v s, _ time.Time) Cell { return Cell{Text: orDash(v.Name), Tone: Strong} }},
			{Title: "LINES", Right: true, Cell: func(v s, _ time.Time) Cell { return Number(v.Count) }},
			{Title: "ERRORS", Right: true, Cell: func(v s, _ time.Time) Cell {
				c := Number(v.Errors)
				if c.Tone = Faint; v.Errors > 0 {
					c.Tone = Bad
				}
				return c
			}},
			{Title: "LAST", Cell: func(v s, now time.Time) Cell { return Since(v.Last, now) }},
		},
	}
}

// SavedLogs is how saved queries are shown.
func SavedLogs() Table[logs.Saved] {
	type s = logs.Saved
	return Table[s]{
		Noun: "saved query",
		Name: func(v s) string { return v.Name },
		Columns: []Column[s]{
			{Title: "NAME", Cell: func(v s, _ time.Time) Cell { return Cell{Text: v.Name, Tone: Strong} }},
			{Title: "QUERY", Shrink: true, Cell: func(v s, _ time.Time) Cell { return Text(v.Query) }},
			{Title: "RUNS", Right: true, Cell: func(v s, _ time.Time) Cell { return Number(v.Runs) }},
			{Title: "LAST RUN", Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.LastRun, now) }},
			{Title: "CHANGED", Detail: Wide, Cell: func(v s, now time.Time) Cell { return Since(v.UpdatedAt, now) }},
			{Title: "CREATED", Detail: Wide, Cell: func(v s, now time.Time) Cell { return Since(v.CreatedAt, now) }},
		},
	}
}
