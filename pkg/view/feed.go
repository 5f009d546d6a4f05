package view

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
)

// Events is how the feed is shown. Its columns have a width of their own:
// lines come one by one.
func Events() Table[events.Event] {
	type e = events.Event
	return Table[e]{
		Noun: "event",
		Name: func(v e) string { return string(v.ID) },
		Columns: []Column[e]{
			{Title: "TIME", Cell: func(v e, now time.Time) Cell { return clock(v.Time, now) }},
			{Title: "EVENT", Cell: func(v e, _ time.Time) Cell {
				c := Cell{Text: Pad(v.Type, 18, false), Raw: v.Type, Tone: eventTone(v.Type)}
				return c
			}},
			{Title: "WHO", Cell: func(v e, _ time.Time) Cell { return Cell{Text: Pad(eventWho(v), 16, false), Raw: orDash(eventWho(v))} }},
			{Title: "WHAT", Shrink: true, Cell: func(v e, _ time.Time) Cell { return Cell{Text: eventText(v), Raw: orDash(eventText(v))} }},
			{Title: "SERVICE", Detail: Wide, Cell: func(v e, _ time.Time) Cell { return Text(v.Service) }},
			{Title: "SESSION", Detail: Wide, Cell: func(v e, _ time.Time) Cell { return Or(string(v.Session)) }},
			{Title: "ID", Detail: Wide, Cell: func(v e, _ time.Time) Cell { return Dim(string(v.ID)) }},
		},
	}
}

// clock is the time of day where now is, with the date where it is not today's.
func clock(t, now time.Time) Cell {
	layout, there := "15:04:05", t.In(now.Location())
	if there.YearDay() != now.YearDay() || there.Year() != now.Year() {
		layout = "01-02 15:04"
	}
	return Cell{Text: Pad(there.Format(layout), 8, false), Raw: t.UTC().Format(time.RFC3339Nano), Tone: Faint}
}

func eventWho(v events.Event) string {
	switch {
	case v.User != "" && v.Device != "":
		return DeviceName(v.User, v.Device)
	case v.User != "":
		return v.User
	case v.Device != "":
		return v.Device
	}
	return cmp.Or(v.Data["service"], v.Data["lane"])
}

func eventText(v events.Event) string {
	s := v.Message
	if s == "" {
		s = v.Reason
	}
	if v.Missed > 0 {
		s = "(" + strconv.FormatUint(v.Missed, 10) + " events before this one were lost) " + s
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func eventTone(kind string) Tone {
	_, verb, _ := strings.Cut(kind, ".")
	switch verb {
	case "opened", "recovered", "ready", "up", "created", "activated", "online":
		return Good
	case "closed", "suspended", "offline", "unready", "backoff", "stopped", "deleted":
		return Warn
	case "refused", "failed", "unhealthy", "denied", "reused", "died":
		return Bad
	}
	return Notice
}

// Audit is how the audit trail is shown.
func Audit() Table[control.AuditEntry] {
	type a = control.AuditEntry
	return Table[a]{
		Noun: "audit entry",
		Name: func(v a) string { return strconv.FormatInt(v.Seq, 10) },
		Columns: []Column[a]{
			{Title: "TIME", Cell: func(v a, now time.Time) Cell { return Since(v.Time, now) }},
			{Title: "WHO", Shrink: true, Cell: func(v a, _ time.Time) Cell { return Cell{Text: v.Who, Tone: Strong} }},
			{Title: "OPERATION", Cell: func(v a, _ time.Time) Cell { return Text(v.Op) }},
			{Title: "TARGET", Shrink: true, Cell: func(v a, _ time.Time) Cell { return Or(v.Target) }},
			{Title: "RESULT", Cell: func(v a, _ time.Time) Cell { return AuditResult(v.Result) }},
			{Title: "FROM", Shrink: true, Cell: func(v a, _ time.Time) Cell { return Or(v.From) }},
			{Title: "MESSAGE", Detail: Wide, Cell: func(v a, _ time.Time) Cell { return Or(v.Message) }},
			{Title: "UID", Detail: Wide, Right: true, Cell: func(v a, _ time.Time) Cell { return Number(int64(v.UID)) }},
			{Title: "PID", Detail: Wide, Right: true, Cell: func(v a, _ time.Time) Cell { return Number(v.PID) }},
			{Title: "REQUEST", Detail: Wide, Cell: func(v a, _ time.Time) Cell { return Dim(v.RequestID) }},
			{Title: "SEQ", Detail: Wide, Right: true, Cell: func(v a, _ time.Time) Cell { return Number(v.Seq) }},
		},
	}
}
