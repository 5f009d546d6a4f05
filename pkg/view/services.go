package view

import (
	"strings"
	"time"

	"vpnd/pkg/api/supervisor"
)

// Services is how supervised processes are shown.
func Services() Table[supervisor.Service] {
	type s = supervisor.Service
	return Table[s]{
		Noun: "service",
		Name: func(v s) string { return v.Name },
		Columns: []Column[s]{
			{Title: "SERVICE", Cell: func(v s, _ time.Time) Cell { return Cell{Text: v.Name, Tone: Strong} }},
			{Title: "STATE", Cell: func(v s, _ time.Time) Cell { return ServiceState(v.State) }},
			{Title: "SINCE", Cell: func(v s, now time.Time) Cell { return Since(v.Since, now) }},
			{Title: "PID", Right: true, Cell: func(v s, _ time.Time) Cell { return orZero(v.PID) }},
			{Title: "RESTARTS", Right: true, Cell: func(v s, _ time.Time) Cell {
				if v.Restarts > 0 {
					return Cell{Text: Number(v.Restarts).Text, Tone: Warn}
				}
				return Number(v.Restarts)
			}},
			{Title: "REASON", Shrink: true, Cell: func(v s, _ time.Time) Cell { return Or(v.Reason) }},
			{Title: "USER", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Or(v.User) }},
			{Title: "ENABLED", Detail: Page, Cell: func(v s, _ time.Time) Cell { return YesNo(v.Enabled) }},
			{Title: "STARTED", Detail: Page, Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.StartedAt, now) }},
			{Title: "PING", Detail: Wide, Right: true, Cell: func(v s, _ time.Time) Cell {
				if v.PingMicros == 0 {
					return Dim("-")
				}
				return Cell{Text: (time.Duration(v.PingMicros) * time.Microsecond).String(), Raw: Number(v.PingMicros).Text}
			}},
			{Title: "MISSED", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return orZero(v.Missed) }},
			{Title: "NEXT START", Detail: Page, Cell: func(v s, now time.Time) Cell {
				if v.NextStartAt == nil {
					return Dim("-")
				}
				return Due(*v.NextStartAt, now)
			}},
			{Title: "LAST EXIT", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Or(v.LastExit) }},
			{Title: "LAST EXIT AT", Detail: Page, Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.LastExitAt, now) }},
			{Title: "SOCKET", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.Socket) }},
			{Title: "COMMAND", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(strings.Join(v.Command, " ")) }},
			{Title: "LAST WORDS", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(strings.Join(v.StderrTail, " | ")) }},
		},
	}
}

func orZero(n int) Cell {
	if n == 0 {
		return Cell{Text: "-", Raw: "0", Tone: Faint}
	}
	return Number(n)
}

// Reload is how the effect of a reload is shown.
func Reload() Table[supervisor.Changes] {
	type c = supervisor.Changes
	list := func(title string, names func(c) []string) Column[c] {
		return Column[c]{Title: title, Cell: func(v c, _ time.Time) Cell { return Or(strings.Join(names(v), " ")) }}
	}
	return Table[c]{
		Noun: "reload",
		Name: func(v c) string {
			return strings.Join(append(append(append([]string(nil), v.Started...), v.Restarted...), v.Stopped...), "\n")
		},
		Columns: []Column[c]{
			list("STARTED", func(v c) []string { return v.Started }),
			list("RESTARTED", func(v c) []string { return v.Restarted }),
			list("STOPPED", func(v c) []string { return v.Stopped }),
			list("UNCHANGED", func(v c) []string { return v.Unchanged }),
		},
	}
}
