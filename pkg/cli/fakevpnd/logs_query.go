package fakevpnd

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// findLogs gives the lines that match, the oldest first, and remembers what
// was asked.
func (w *World) findLogs(query string) ([]logs.Record, error) {
	w.LogQueries = append(w.LogQueries, query)
	match, err := logMatcher(query)
	if err != nil {
		return nil, err
	}
	out := []logs.Record{}
	for _, v := range w.Logs {
		if match(v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// logMatcher understands as much of the language as tests here ask: words,
// "phrases", fields with =, >= and >, lists, !, since and until.
func logMatcher(query string) (func(logs.Record) bool, error) {
	var tests []func(logs.Record) bool
	for _, term := range logTerms(query) {
		text := strings.TrimPrefix(term.text, "!")
		test, err := logTest(text, term.column)
		if err != nil {
			return nil, err
		}
		if text != term.text {
			was := test
			test = func(v logs.Record) bool { return !was(v) }
		}
		tests = append(tests, test)
	}
	return func(v logs.Record) bool {
		return !slices.ContainsFunc(tests, func(t func(logs.Record) bool) bool { return !t(v) })
	}, nil
}

type logTerm struct {
	text   string
	column int // of its first character, from 1
}

// logTerms splits at spaces outside of quotes, and drops the quotes.
func logTerms(query string) []logTerm {
	var out []logTerm
	var b strings.Builder
	began, quoted := 0, false
	for i, r := range []rune(query + " ") {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ' ' && !quoted:
			if b.Len() > 0 {
				out = append(out, logTerm{b.String(), began + 1})
			}
			b.Reset()
			continue
		}
		if b.Len() == 0 {
			began = i
		}
		if r != '"' {
			b.WriteRune(r)
		}
	}
	return out
}

func logTest(text string, column int) (func(logs.Record) bool, error) {
	at := strings.IndexAny(text, "=<>")
	if at < 0 {
		return func(v logs.Record) bool {
			return strings.Contains(strings.ToLower(view.LogText(v)+" "+string(v.Fields)), strings.ToLower(text))
		}, nil
	}
	field, rest := text[:at], text[at:]
	value := strings.TrimLeft(rest, "=<>")
	op := rest[:len(rest)-len(value)]
	if len(op) > 1 && op != ">=" && op != "<=" || field == "" {
		return nil, fault.New(fault.Invalid, "column %d: %q is no comparison", column+at, op).
			WithFields(fault.Field{Path: "query", Message: "column " + strconv.Itoa(column+at) + ": " + strconv.Quote(op) + " is no comparison"}).
			WithHint("write field=value, !=, <, <=, > or >=")
	}
	if field == "since" || field == "until" {
		t, err := time.Parse(time.RFC3339, value)
		hours := 1
		if days, ok := strings.CutSuffix(value, "d"); ok {
			value, hours = days+"h", 24
		}
		if d, derr := time.ParseDuration(value); derr == nil {
			t, err = ago(d*time.Duration(hours)), nil
		}
		if value == "now" {
			t, err = Now(), nil
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "column %d: %q is no time", column+at+1, value).
				WithFields(fault.Field{Path: "query", Message: "column " + strconv.Itoa(column+at+1) + ": " + strconv.Quote(value) + " is no time"})
		}
		return func(v logs.Record) bool { return v.Time.Before(t) == (field == "until") }, nil
	}
	return func(v logs.Record) bool { return logCompare(field, logValue(v, field), op, value) }, nil
}

func logCompare(field, have, op, want string) bool {
	if op == "=" {
		return have != "" && (want == "*" || slices.Contains(strings.Split(want, ","), have))
	}
	levels := []string{"", "trace", "debug", "info", "warn", "error", "fatal"}
	a, aerr := strconv.ParseFloat(have, 64)
	b, berr := strconv.ParseFloat(want, 64)
	if field == "level" {
		a, b, aerr, berr = float64(slices.Index(levels, have)), float64(slices.Index(levels, want)), nil, nil
	}
	if aerr != nil || berr != nil {
		return false
	}
	switch op {
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "<":
		return a < b
	}
	return a <= b
}

func logValue(v logs.Record, field string) string {
	switch field {
	case "level":
		return v.Level
	case "service":
		return v.Service
	case "event":
		return v.Event
	case "message":
		return v.Message
	case "user":
		return v.User
	case "device":
		return v.Device
	case "session":
		return v.Session
	case "request_id":
		return v.RequestID
	case "file":
		return v.File
	}
	for _, f := range view.MoreLogFields(v.Fields) {
		if f.Key == field {
			return f.Value
		}
	}
	return ""
}
