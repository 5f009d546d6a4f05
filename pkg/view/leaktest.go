package view

import (
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/lanes"
)

// LeakTests is how leak tests are shown, the verdict last.
func LeakTests() Table[canary.Result] {
	type r = canary.Result
	return Table[r]{
		Noun: "leak test",
		Name: func(v r) string { return string(v.Lane) + "/" + v.At.UTC().Format(time.RFC3339) },
		Columns: []Column[r]{
			{Title: "LANE", Cell: func(v r, _ time.Time) Cell { return Cell{Text: string(v.Lane), Tone: Strong} }},
			{Title: "WHEN", Cell: func(v r, now time.Time) Cell { return Since(v.At, now) }},
			{Title: "STATE", Label: "lane state", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Or(v.LaneState) }},
			{Title: "SENT", Right: true, Cell: func(v r, _ time.Time) Cell { return Number(v.Sent) }},
			{Title: "LEFT", Label: "left the host", Right: true, Cell: func(v r, _ time.Time) Cell { return leaked(v.Left) }},
			{Title: "REACHED", Label: "reached services", Right: true, Cell: func(v r, _ time.Time) Cell { return leaked(v.Reached) }},
			{Title: "TOOK", Detail: Wide, Right: true, Cell: func(v r, _ time.Time) Cell { return millis(v.TookMs) }},
			{Title: "REPAIRED", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Or(v.Repaired) }},
			{Title: "VERDICT", Cell: func(v r, _ time.Time) Cell { return LeakVerdict(v) }},
			{Title: "MESSAGE", Shrink: true, Cell: func(v r, _ time.Time) Cell { return Or(v.Message) }},
		},
	}
}

// LeakAttempts is how the packets of a leak test of a lane are shown.
func LeakAttempts(lane lanes.Name) Table[canary.Attempt] {
	type a = canary.Attempt
	return Table[a]{
		Noun: "attempt",
		Name: func(v a) string { return v.Kind + "/" + v.Family },
		Columns: []Column[a]{
			{Title: "ATTEMPT", Cell: func(v a, _ time.Time) Cell { return Cell{Text: v.Kind, Tone: Strong} }},
			{Title: "FAMILY", Cell: func(v a, _ time.Time) Cell { return Text(v.Family) }},
			{Title: "PACKETS", Right: true, Cell: func(v a, _ time.Time) Cell { return Number(v.Sent) }},
			{Title: "LEAKED", Cell: func(v a, _ time.Time) Cell {
				if v.Leaked {
					return Cell{Text: "yes", Symbol: Cross, Tone: Bad}
				}
				return Dim("no")
			}},
			{Title: "ANSWER", Shrink: true, Cell: func(v a, _ time.Time) Cell { return answer(v, lane) }},
		},
	}
}

// LeakVerdict is the outcome of a leak test in a word.
func LeakVerdict(r canary.Result) Cell {
	if r.OK {
		return Cell{Text: "ok", Symbol: Check, Tone: Good}
	}
	return Cell{Text: "failed", Symbol: Cross, Tone: Bad}
}

func leaked(n uint64) Cell {
	c := Text(strconv.FormatUint(n, 10))
	if n > 0 {
		c.Tone = Bad
	}
	return c
}

// answer is what came back. In lane tor a reply that is no leak is Tor's: it
// takes connections of devices, as it should.
func answer(v canary.Attempt, lane lanes.Name) Cell {
	c := Or(v.Answer)
	if lane == lanes.Tor && !v.Leaked && v.Answer != "" {
		c.Text, c.Raw = strings.ReplaceAll(v.Answer, "reply", "reply (through Tor)"), v.Answer
	}
	return c
}
