package view

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/api/tor"
)

// Circuits is how circuits of tor are shown.
func Circuits() Table[tor.Circuit] {
	type c = tor.Circuit
	return Table[c]{
		Noun: "circuit",
		Name: func(v c) string { return v.ID },
		Columns: []Column[c]{
			{Title: "ID", Cell: func(v c, _ time.Time) Cell { return Cell{Text: v.ID, Tone: Strong} }},
			{Title: "STATE", Cell: func(v c, _ time.Time) Cell { return CircuitState(v.State) }},
			{Title: "COUNTRIES", Cell: func(v c, _ time.Time) Cell { return countries(v.Path) }},
			{Title: "PATH", Shrink: true, Cell: func(v c, _ time.Time) Cell { return path(v.Path) }},
			{Title: "DEVICES", Shrink: true, Cell: func(v c, _ time.Time) Cell { return owners(v.Devices) }},
			{Title: "STREAMS", Right: true, Cell: func(v c, _ time.Time) Cell { return Number(v.Streams) }},
			{Title: "CREATED", Cell: func(v c, now time.Time) Cell { return Since(v.Created, now) }},
			{Title: "PURPOSE", Detail: Wide, Cell: func(v c, _ time.Time) Cell { return Or(v.Purpose) }},
			{Title: "CHOSEN BY", Detail: Wide, Cell: func(v c, _ time.Time) Cell {
				if v.Ours {
					return Text("vpnd")
				}
				return Text("tor")
			}},
			{Title: "GUARD", Detail: Page, Cell: func(v c, _ time.Time) Cell { return relays(v.Path, 0, 1) }},
			{Title: "MIDDLE", Detail: Page, Cell: func(v c, _ time.Time) Cell { return relays(v.Path, 1, len(v.Path)-1) }},
			{Title: "LAST", Detail: Page, Cell: func(v c, _ time.Time) Cell { return relays(v.Path, max(1, len(v.Path)-1), len(v.Path)) }},
		},
	}
}

// CircuitState is the state of a circuit, in tor's word.
func CircuitState(word string) Cell {
	return state(word, map[string]look{
		"BUILT": {Full, Good}, "LAUNCHED": {Busy, Notice}, "EXTENDED": {Busy, Notice}, "GUARD_WAIT": {Busy, Notice},
		"FAILED": {Cross, Bad}, "CLOSED": {Empty, Faint},
	})
}

// countries are those that a circuit goes through, guard first.
func countries(hops []tor.Hop) Cell {
	words := make([]string, len(hops))
	for i, h := range hops {
		words[i] = cmp.Or(h.Country, "??")
	}
	if len(hops) == 0 {
		return Dim("-")
	}
	return Cell{Text: strings.Join(words, " → "), Raw: strings.Join(words, ",")}
}

// path is who a circuit goes through, guard first; for scripts the way tor
// writes it.
func path(hops []tor.Hop) Cell {
	words, exact := make([]string, len(hops)), make([]string, len(hops))
	for i, h := range hops {
		words[i] = cmp.Or(h.Nickname, h.Fingerprint[:min(8, len(h.Fingerprint))])
		exact[i] = strings.TrimSuffix("$"+h.Fingerprint+"~"+h.Nickname, "~")
	}
	if len(hops) == 0 {
		return Dim("-")
	}
	return Cell{Text: strings.Join(words, " → "), Raw: strings.Join(exact, ",")}
}

// relays are those of a path from one position to before another.
func relays(hops []tor.Hop, from, to int) Cell {
	var words []string
	for i := from; i < min(to, len(hops)); i++ {
		word := hops[i].Fingerprint
		if a := hops[i].Address; a.IsValid() {
			word += " " + a.String()
		}
		words = append(words, word)
	}
	return Or(strings.Join(words, ", "))
}

// OwnerName is whose a stream is: the device's name, or its address where
// nobody knows more.
func OwnerName(o tor.Owner) string {
	switch {
	case o.User != "" && o.Device != "":
		return DeviceName(o.User, o.Device)
	case o.User != "":
		return o.User
	case o.Address.IsValid():
		return o.Address.String()
	}
	return ""
}

func owners(all []tor.Owner) Cell {
	var names []string
	for _, o := range all {
		if n := OwnerName(o); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return Or(strings.Join(names, ", "))
}

// Streams is how connections through tor are shown.
func Streams() Table[tor.Stream] {
	type s = tor.Stream
	return Table[s]{
		Noun: "stream",
		Name: func(v s) string { return v.ID },
		Columns: []Column[s]{
			{Title: "ID", Cell: func(v s, _ time.Time) Cell { return Cell{Text: v.ID, Tone: Strong} }},
			{Title: "DEVICE", Shrink: true, Cell: func(v s, _ time.Time) Cell { return Or(OwnerName(v.Owner)) }},
			{Title: "TARGET", Shrink: true, Cell: func(v s, _ time.Time) Cell { return Or(v.Target) }},
			{Title: "STATE", Cell: func(v s, _ time.Time) Cell { return streamState(v.State) }},
			{Title: "CIRCUIT", Cell: func(v s, _ time.Time) Cell { return Or(v.Circuit) }},
			{Title: "ADDRESS", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Address(v.Owner.Address) }},
		},
	}
}

func streamState(word string) Cell {
	return state(word, map[string]look{
		"SUCCEEDED": {Full, Good}, "NEW": {Busy, Notice}, "NEWRESOLVE": {Busy, Notice}, "SENTCONNECT": {Busy, Notice}, "SENTRESOLVE": {Busy, Notice},
		"REMAP": {Busy, Notice}, "CONTROLLER_WAIT": {Busy, Notice}, "XOFF_SENT": {Full, Good}, "XOFF_RECV": {Full, Good}, "XON_SENT": {Full, Good}, "XON_RECV": {Full, Good},
		"DETACHED": {Caution, Warn}, "FAILED": {Cross, Bad}, "CLOSED": {Empty, Faint},
	})
}

// Onions is how the onion names in use are shown.
func Onions() Table[tor.Onion] {
	type o = tor.Onion
	return Table[o]{
		Noun: "onion name",
		Name: func(v o) string { return v.Name },
		Columns: []Column[o]{
			{Title: "NAME", Shrink: true, Cell: func(v o, _ time.Time) Cell { return Cell{Text: v.Name, Tone: Strong} }},
			{Title: "ADDRESS", Cell: func(v o, _ time.Time) Cell { return Address(v.Virtual) }},
		},
	}
}

// NewIDs is how a new identity of name is shown.
func NewIDs(name string) Table[tor.NewIDReply] {
	type n = tor.NewIDReply
	return Table[n]{
		Noun: "new identity",
		Name: func(n) string { return name },
		Columns: []Column[n]{
			{Title: "DEVICES", Right: true, Cell: func(v n, _ time.Time) Cell { return Number(v.Devices) }},
			{Title: "CIRCUITS CLOSED", Right: true, Cell: func(v n, _ time.Time) Cell { return Number(v.Circuits) }},
			{Title: "STREAMS CLOSED", Right: true, Cell: func(v n, _ time.Time) Cell { return Number(v.Streams) }},
		},
	}
}

// TorCheck is how what a page outside saw is shown.
func TorCheck() Table[tor.Check] {
	type c = tor.Check
	return Table[c]{
		Noun: "check",
		Name: func(c) string { return "tor" },
		Columns: []Column[c]{
			{Title: "RESULT", Cell: func(v c, _ time.Time) Cell { return fine(v.OK, "through Tor", "failed") }},
			{Title: "SEEN", Cell: func(v c, _ time.Time) Cell { return seen(v.Seen, v.Country) }},
			{Title: "TOOK", Right: true, Cell: func(v c, _ time.Time) Cell { return millis(v.TookMs) }},
			{Title: "PAGE", Shrink: true, Cell: func(v c, _ time.Time) Cell { return Or(v.URL) }},
			{Title: "MESSAGE", Shrink: true, Cell: func(v c, _ time.Time) Cell { return Or(v.Message) }},
		},
	}
}

func seen(a netip.Addr, country string) Cell {
	c := Address(a)
	if a.IsValid() && country != "" {
		c.Text, c.Raw = c.Text+" ("+country+")", c.Text
	}
	return c
}

func millis(ms int64) Cell {
	return Cell{Text: fmt.Sprintf("%d ms", ms), Raw: Number(ms).Text}
}
