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
			{Title: "PATH", Shrink: true, Cell: func(v c, _ time.Time) Cell { return path(v.Path) }},
			{Title: "DEVICES", Shrink: true, Cell: func(v c, _ time.Time) Cell { return owners(v.Devices) }},
			{Title: "STREAMS", Right: true, Cell: func(v c, _ time.Time) Cell { return Number(v.Streams) }},
			{Title: "CREATED", Detail: Wide, Cell: func(v c, now time.Time) Cell { return Since(v.Created, now) }},
			{Title: "PURPOSE", Detail: Wide, Cell: func(v c, _ time.Time) Cell { return purpose(v.Purpose) }},
			{Title: "FINGERPRINTS", Detail: Wide, Cell: func(v c, _ time.Time) Cell { return fingerprints(v.Path) }},
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

// CircuitState is the state of a circuit; scripts get tor's word.
func CircuitState(word string) Cell {
	return ofTor(word, map[string]string{"LAUNCHED": "building", "EXTENDED": "building", "GUARD_WAIT": "waiting"}, map[string]look{
		"built": {Full, Good}, "building": {Busy, Notice}, "waiting": {Busy, Notice},
		"closing": {Empty, Faint}, "failed": {Cross, Bad}, "closed": {Empty, Faint},
	})
}

// ofTor is a state that tor calls by a word of its own.
func ofTor(word string, means map[string]string, looks map[string]look) Cell {
	c := state(cmp.Or(means[word], lower(word)), looks)
	c.Raw = word
	return c
}

// lower writes a word of tor's as people do.
func lower(word string) string { return strings.ToLower(strings.ReplaceAll(word, "_", " ")) }

func purpose(word string) Cell {
	if word == "" {
		return Dim("-")
	}
	return Cell{Text: lower(word), Raw: word}
}

// path is who a circuit goes through and where, guard first. Long names are
// cut one by one: the exit, which is last, matters most.
func path(hops []tor.Hop) Cell {
	const width = 9
	words, exact := make([]string, len(hops)), make([]string, len(hops))
	for i, h := range hops {
		name, country := cmp.Or(h.Nickname, h.Fingerprint[:min(8, len(h.Fingerprint))]), "("+cmp.Or(h.Country, "-")+")"
		words[i], exact[i] = Fit(Clean(name), width)+country, name+country
	}
	if len(hops) == 0 {
		return Dim("-")
	}
	return Cell{Text: strings.Join(words, " → "), Raw: strings.Join(exact, ",")}
}

// fingerprints are those of a circuit's relays, the way tor writes them.
func fingerprints(hops []tor.Hop) Cell {
	words := make([]string, len(hops))
	for i, h := range hops {
		words[i] = strings.TrimSuffix("$"+h.Fingerprint+"~"+h.Nickname, "~")
	}
	if len(words) == 0 {
		return Dim("-")
	}
	return Cell{Text: strings.Join(words, ", "), Raw: strings.Join(words, ",")}
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

// streamState is the state of a stream; scripts get tor's word.
func streamState(word string) Cell {
	return ofTor(word, map[string]string{
		"SUCCEEDED": "open", "XOFF_SENT": "open", "XOFF_RECV": "open", "XON_SENT": "open", "XON_RECV": "open",
		"NEW": "connecting", "SENTCONNECT": "connecting", "REMAP": "connecting", "CONTROLLER_WAIT": "waiting",
		"NEWRESOLVE": "resolving", "SENTRESOLVE": "resolving",
	}, map[string]look{
		"open": {Full, Good}, "connecting": {Busy, Notice}, "waiting": {Busy, Notice}, "resolving": {Busy, Notice},
		"detached": {Caution, Warn}, "failed": {Cross, Bad}, "closed": {Empty, Faint},
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
	text := fmt.Sprintf("%d ms", ms)
	if ms >= 1000 {
		text = fmt.Sprintf("%.1f s", float64(ms)/1000)
	}
	return Cell{Text: text, Raw: Number(ms).Text}
}
