package view

import (
	"strconv"
	"time"
)

// Tone says how a value should strike the eye. It is never the only carrier
// of a meaning: the text says the same.
type Tone int

// The tones.
const (
	Normal Tone = iota
	Good
	Notice
	Warn
	Bad
	Faint
	Strong
)

// Cell is one value of a table.
type Cell struct {
	Text   string // for people
	Raw    string // for scripts where it differs: exact bytes, RFC 3339 times
	Symbol Symbol // before the text, on a terminal
	Tone   Tone
}

// Exact is the value for scripts.
func (c Cell) Exact() string {
	if c.Raw != "" {
		return Clean(c.Raw)
	}
	return Clean(c.Text)
}

// Symbol is a mark with the same meaning in any locale.
type Symbol struct{ Unicode, ASCII string }

// The symbols.
var (
	None    = Symbol{}
	Full    = Symbol{"●", "*"} // works
	Empty   = Symbol{"○", "o"} // off, away
	Busy    = Symbol{"◌", "~"} // on its way
	Barred  = Symbol{"■", "#"} // closed on purpose
	Caution = Symbol{"▲", "!"} // wants attention
	Cross   = Symbol{"✗", "x"} // broken
	Check   = Symbol{"✓", "+"} // fine
	Arrow   = Symbol{"→", ">"} // what to do
)

// Text is a plain value.
func Text(s string) Cell { return Cell{Text: s} }

// Dim is a value of lesser interest.
func Dim(s string) Cell { return Cell{Text: s, Tone: Faint} }

// Number is a count.
func Number[N ~int | ~int32 | ~int64](n N) Cell { return Cell{Text: strconv.FormatInt(int64(n), 10)} }

// Size is an amount of bytes.
func Size(n int64) Cell { return Cell{Text: Bytes(n), Raw: strconv.FormatInt(n, 10)} }

// Since is a time in the past.
func Since(t, now time.Time) Cell {
	if t.IsZero() {
		return Dim("-")
	}
	return Cell{Text: Ago(t, now), Raw: t.UTC().Format(time.RFC3339)}
}

// SinceMaybe is Since for a time that may not have come.
func SinceMaybe(t *time.Time, now time.Time) Cell {
	if t == nil {
		return Dim("-")
	}
	return Since(*t, now)
}

// Due is a time in the future.
func Due(t, now time.Time) Cell {
	if t.IsZero() {
		return Dim("-")
	}
	return Cell{Text: Until(t, now), Raw: t.UTC().Format(time.RFC3339)}
}

// Or is s, or a dash where there is none.
func Or(s string) Cell {
	if s == "" {
		return Dim("-")
	}
	return Text(s)
}
