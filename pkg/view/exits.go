package view

import (
	"cmp"
	"strings"
	"time"

	"vpnd/pkg/api/tor"
)

// Choices is how exit choices are shown.
func Choices() Table[tor.Choice] {
	type c = tor.Choice
	return Table[c]{
		Noun: "exit choice",
		Name: func(v c) string { return cmp.Or(v.User, "-") },
		Columns: []Column[c]{
			{Title: "USER", Cell: func(v c, _ time.Time) Cell {
				if v.User == "" {
					return Cell{Text: "everybody", Raw: "-", Tone: Strong}
				}
				return Cell{Text: v.User, Tone: Strong}
			}},
			{Title: "EXITS", Shrink: true, Cell: func(v c, _ time.Time) Cell {
				if len(v.Exits) == 0 {
					return Cell{Text: "tor chooses", Raw: "-", Tone: Faint}
				}
				return Cell{Text: strings.Join(v.Exits, ", "), Raw: strings.Join(v.Exits, ",")}
			}},
			{Title: "OTHERWISE", Cell: func(v c, _ time.Time) Cell {
				switch {
				case len(v.Exits) == 0:
					return Dim("-")
				case v.Strict:
					return Cell{Text: "no connection", Raw: "strict"}
				}
				return Cell{Text: "tor chooses", Raw: "prefer"}
			}},
			{Title: "USABLE", Right: true, Cell: func(v c, _ time.Time) Cell {
				if len(v.Exits) == 0 {
					return Dim("-")
				}
				n := Number(v.Usable)
				switch {
				case v.Usable == 0:
					n.Tone = Bad
				case v.Usable < 3:
					n.Tone = Warn
				}
				return n
			}},
		},
	}
}

// choice is an exit choice in a few words.
func choice(v *tor.Choice) Cell {
	if v == nil || len(v.Exits) == 0 {
		return Dim("-")
	}
	text := strings.Join(v.Exits, ", ")
	if v.Strict {
		text += " only"
	}
	return Cell{Text: text, Raw: strings.Join(v.Exits, ",")}
}

// Relays is how relays of the consensus are shown.
func Relays() Table[tor.Relay] {
	type r = tor.Relay
	return Table[r]{
		Noun: "relay",
		Name: func(v r) string { return v.Fingerprint },
		Columns: []Column[r]{
			{Title: "NICKNAME", Cell: func(v r, _ time.Time) Cell { return Cell{Text: v.Nickname, Tone: Strong} }},
			{Title: "COUNTRY", Cell: func(v r, _ time.Time) Cell { return Or(v.Country) }},
			{Title: "ADDRESS", Cell: func(v r, _ time.Time) Cell { return Address(v.Address) }},
			{Title: "WEIGHT", Right: true, Cell: func(v r, _ time.Time) Cell { return Number(v.Bandwidth) }},
			{Title: "EXIT", Cell: func(v r, _ time.Time) Cell { return YesNo(v.Exit) }},
			{Title: "IPV6", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return YesNo(v.IPv6) }},
			{Title: "FLAGS", Shrink: true, Cell: func(v r, _ time.Time) Cell {
				return Cell{Text: strings.Join(v.Flags, " "), Raw: orDash(strings.Join(v.Flags, ",")), Tone: Faint}
			}},
			{Title: "FINGERPRINT", Detail: Wide, Cell: func(v r, _ time.Time) Cell { return Text(v.Fingerprint) }},
		},
	}
}

// Bridges is how bridges are shown.
func Bridges() Table[tor.Bridge] {
	type b = tor.Bridge
	return Table[b]{
		Noun: "bridge",
		Name: func(v b) string { return v.ID },
		Columns: []Column[b]{
			{Title: "ID", Cell: func(v b, _ time.Time) Cell { return Cell{Text: v.ID, Tone: Strong} }},
			{Title: "TRANSPORT", Cell: func(v b, _ time.Time) Cell { return Text(cmp.Or(v.Transport, "plain")) }},
			{Title: "PROGRAM", Shrink: true, Cell: func(v b, _ time.Time) Cell {
				c := fine(v.Available, "there", cmp.Or(v.Message, "missing"))
				if v.Transport == "" && v.Available {
					return Dim("none needed")
				}
				return c
			}},
			{Title: "LINE", Shrink: true, Cell: func(v b, _ time.Time) Cell { return Text(v.Line) }},
			{Title: "FINGERPRINT", Detail: Wide, Cell: func(v b, _ time.Time) Cell { return Or(v.Fingerprint) }},
		},
	}
}

// BridgeTest is how reaching a bridge went.
type BridgeTest struct {
	ID string `json:"id"`
	tor.BridgeTest
}

// BridgeTests is how tests of bridges are shown.
func BridgeTests() Table[BridgeTest] {
	type b = BridgeTest
	return Table[b]{
		Noun: "bridge test",
		Name: func(v b) string { return v.ID },
		Columns: []Column[b]{
			{Title: "ID", Cell: func(v b, _ time.Time) Cell { return Cell{Text: v.ID, Tone: Strong} }},
			{Title: "RESULT", Cell: func(v b, _ time.Time) Cell { return fine(v.OK, "reached", "not reached") }},
			{Title: "TOOK", Right: true, Cell: func(v b, _ time.Time) Cell { return millis(v.TookMs) }},
			{Title: "MESSAGE", Shrink: true, Cell: func(v b, _ time.Time) Cell { return Or(v.Message) }},
		},
	}
}
