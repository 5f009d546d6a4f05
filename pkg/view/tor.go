package view

import (
	"fmt"
	"strings"
	"time"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
)

// Tor is how the state of lane tor's Tor is shown.
func Tor() Table[tor.Status] {
	type s = tor.Status
	return Table[s]{
		Noun: "tor",
		Name: func(s) string { return "tor" },
		Columns: []Column[s]{
			{Title: "LANE", Cell: func(v s, _ time.Time) Cell { return LaneState(lanes.Lane{State: v.Lane}) }},
			{Title: "SINCE", Cell: func(v s, now time.Time) Cell { return Since(v.Since, now) }},
			{Title: "WISH", Cell: func(v s, _ time.Time) Cell { return Or(string(v.Wish)) }},
			{Title: "PROCESS", Cell: func(v s, _ time.Time) Cell { return TorProcess(v.Process) }},
			{Title: "BOOTSTRAP", Cell: func(v s, _ time.Time) Cell { return Bootstrap(v.Bootstrap) }},
			{Title: "REASON", Shrink: true, Cell: func(v s, _ time.Time) Cell { return Or(v.Reason) }},
			{Title: "HINT", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.Hint) }},
			{Title: "MESSAGE", Detail: Page, Cell: func(v s, _ time.Time) Cell {
				if v.Message == v.Reason { // which says it already
					return Dim("-")
				}
				return Or(v.Message)
			}},
			{Title: "PROCESS WISH", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.WishProcess) }},
			{Title: "PID", Detail: Wide, Right: true, Cell: func(v s, _ time.Time) Cell { return orZero(v.PID) }},
			{Title: "VERSION", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Or(v.Version) }},
			{Title: "STARTED", Detail: Page, Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.StartedAt, now) }},
			{Title: "RESTARTS", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return Number(v.Restarts) }},
			{Title: "PHASE", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(BootstrapPhase(v.Bootstrap)) }},
			{Title: "WARNING", Detail: Page, Cell: func(v s, _ time.Time) Cell { return warning(v.Bootstrap) }},
			{Title: "DIRECTORY", Detail: Page, Cell: func(v s, _ time.Time) Cell { return alive(v, fine(v.EnoughDirInfo, "enough", "not enough yet")) }},
			{Title: "CIRCUIT", Detail: Page, Cell: func(v s, _ time.Time) Cell { return alive(v, fine(v.Circuit, "established", "none")) }},
			{Title: "NETWORK", Detail: Page, Cell: func(v s, _ time.Time) Cell { return alive(v, fine(v.NetworkLive, "live", "unreachable")) }},
			{Title: "PROBE", Detail: Page, Cell: func(v s, now time.Time) Cell { return alive(v, probe(v.Probe, now)) }},
			{Title: "CLOCK", Detail: Page, Cell: func(v s, _ time.Time) Cell { return skew(v.ClockSkew) }},
			{Title: "CIRCUITS", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return alive(v, Number(v.Circuits)) }},
			{Title: "STREAMS", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return alive(v, Number(v.Streams)) }},
			{Title: "ISOLATION", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.Isolation) }},
			{Title: "BRIDGES", Detail: Page, Cell: func(v s, _ time.Time) Cell { return inUse(v.Bridges) }},
			{Title: "EXITS", Detail: Page, Cell: func(v s, _ time.Time) Cell { return choice(v.Exit) }},
			{Title: "USERS WITH EXITS", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return orZero(v.Exits) }},
			{Title: "READ", Detail: Wide, Right: true, Cell: func(v s, _ time.Time) Cell { return alive(v, Size(v.RxBytes)) }},
			{Title: "WRITTEN", Detail: Wide, Right: true, Cell: func(v s, _ time.Time) Cell { return alive(v, Size(v.TxBytes)) }},
		},
	}
}

// alive is what is known of a tor that answers; of a dead one nothing is.
func alive(v tor.Status, c Cell) Cell {
	switch v.Process {
	case tor.ProcessStopped, tor.ProcessMissing, tor.ProcessFailed:
		return Dim("-")
	}
	return c
}

// Bootstraps is how steps of tor's start are shown to scripts.
func Bootstraps() Table[tor.Bootstrap] {
	type b = tor.Bootstrap
	return Table[b]{
		Noun: "step",
		Name: func(b) string { return "tor" },
		Columns: []Column[b]{
			{Title: "PERCENT", Right: true, Cell: func(v b, _ time.Time) Cell { return Number(v.Percent) }},
			{Title: "PHASE", Cell: func(v b, _ time.Time) Cell { return Or(v.Tag) }},
			{Title: "SUMMARY", Shrink: true, Cell: func(v b, _ time.Time) Cell { return Or(v.Summary) }},
			{Title: "WARNING", Shrink: true, Cell: func(v b, _ time.Time) Cell { return warning(v) }},
		},
	}
}

// Bootstrap is how far tor has come, with a bar.
func Bootstrap(b tor.Bootstrap) Cell {
	const width = 10
	percent := min(max(b.Percent, 0), 100)
	full := percent * width / 100
	tone := Notice
	switch {
	case percent == 100:
		tone = Good
	case b.Warning != "":
		tone = Warn
	}
	text := fmt.Sprintf("%s%s %3d %%", strings.Repeat("█", full), strings.Repeat("░", width-full), percent)
	return Cell{Text: text, Raw: Number(b.Percent).Text, Tone: tone}
}

// BootstrapPhase is what tor does at this point of its start.
func BootstrapPhase(b tor.Bootstrap) string {
	return strings.Trim(b.Tag+": "+b.Summary, ": ")
}

func warning(b tor.Bootstrap) Cell {
	if b.Warning == "" {
		return Dim("-")
	}
	return Cell{Text: b.Warning, Tone: Warn}
}

// TorProcess is the state of the tor process.
func TorProcess(s tor.ProcessState) Cell {
	return state(string(s), map[string]look{
		string(tor.ProcessRunning): {Full, Good}, string(tor.ProcessStarting): {Busy, Notice}, string(tor.ProcessStopped): {Empty, Faint},
		string(tor.ProcessHung): {Caution, Warn}, string(tor.ProcessFailed): {Cross, Bad}, string(tor.ProcessMissing): {Cross, Bad},
	})
}

func fine(ok bool, yes, no string) Cell {
	if ok {
		return Cell{Text: yes, Symbol: Check, Tone: Good}
	}
	return Cell{Text: no, Symbol: Cross, Tone: Warn}
}

func inUse(b bool) Cell {
	if b {
		return Text("in use")
	}
	return Dim("not in use")
}

// skew is how far this host's clock is off. Relays refuse half an hour and more.
func skew(seconds int64) Cell {
	if seconds == 0 {
		return Dim("-")
	}
	d, way := time.Duration(seconds)*time.Second, "ahead"
	if d < 0 {
		d, way = -d, "behind"
	}
	return Cell{Text: Duration(d) + " " + way, Raw: Number(seconds).Text, Symbol: Caution, Tone: Warn}
}

func probe(p tor.Probe, now time.Time) Cell {
	if p.At == nil {
		return Dim("-")
	}
	c := fine(p.OK, "built in "+millis(p.TookMs).Text+", "+Ago(*p.At, now), "failed "+Ago(*p.At, now))
	c.Raw = "failed"
	if p.OK {
		c.Raw = "ok"
	}
	if p.Message != "" {
		c.Text += ": " + p.Message
	}
	return c
}
