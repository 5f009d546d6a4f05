package view

import (
	"fmt"
	"strings"
	"time"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/supervisor"
)

// Status is one screen of everything for a terminal of width cells.
func Status(s *control.Status, detail Detail, now time.Time, width int, th Theme) []string {
	if width <= 0 {
		width = 80
	}
	p := statusPage{s: s, now: now, width: width, th: th, detail: detail}
	p.head()
	p.lanes()
	p.people()
	p.services()
	p.problems()
	return p.lines
}

type statusPage struct {
	s      *control.Status
	now    time.Time
	width  int
	th     Theme
	detail Detail
	lines  []string
}

func (p *statusPage) add(line string) { p.lines = append(p.lines, strings.TrimRight(line, " ")) }

func (p *statusPage) section(title string) {
	p.add("")
	p.add(p.th.Paint(title, Strong))
}

func (p *statusPage) head() {
	state := Cell{Text: "healthy", Symbol: Full, Tone: Good}
	if !p.s.Healthy {
		state = Cell{Text: Count(len(p.s.Problems), "problem", "problems"), Symbol: Caution, Tone: Warn}
	}
	left := p.th.Paint("vpnd", Strong) + " " + Clean(p.s.Version) + "  " + p.th.Show(state)
	right := "up " + Duration(p.s.Time.Sub(p.s.Started))
	p.add(left + strings.Repeat(" ", max(2, p.width-Width(left)-Width(right))) + p.th.Paint(right, Faint))
	p.field("clients connect to", p.s.Endpoint)
	if p.s.Pin != "" {
		p.field("certificate pin", p.s.Pin)
	}
}

func (p *statusPage) field(title, value string) {
	if value == "" {
		value = "-"
	}
	p.add("  " + p.th.Paint(Pad(title, 20, false), Faint) + Clean(value))
}

func (p *statusPage) lanes() {
	if len(p.s.Lanes) == 0 {
		return
	}
	p.section("Lanes")
	var prefixes, peers, states int
	rows := make([][4]string, len(p.s.Lanes))
	for i, l := range p.s.Lanes {
		rows[i] = [4]string{p.th.words(LaneState(l)), Count(l.Peers, "peer", "peers"), l.IPv4.String(), l.IPv6.String()}
		states, peers, prefixes = max(states, Width(rows[i][0])), max(peers, Width(rows[i][1])), max(prefixes, Width(rows[i][2]))
	}
	for i, l := range p.s.Lanes {
		port := fmt.Sprintf("%s udp %d", l.Interface, l.Port)
		line := "  " + Pad(Clean(string(l.Name)), 4, false) + "  " + p.th.Paint(Pad(rows[i][0], states, false), LaneState(l).Tone) +
			"  " + Pad(rows[i][1], peers, true) + "  " + Pad(Clean(port), 13, false) +
			"  " + Pad(rows[i][2], prefixes, false)
		if Width(line)+2+Width(rows[i][3]) <= p.width {
			p.add(line + "  " + rows[i][3])
		} else {
			p.add(line)
			p.add("        " + rows[i][3])
		}
		p.laneReason(l)
		if p.detail >= Wide {
			p.add("        " + p.th.Paint(fmt.Sprintf("%s, MTU %d, since %s, key %s", l.Backend, l.MTU, Ago(l.Since, p.now), Clean(l.PublicKey)), Faint))
		}
	}
}

func (p *statusPage) laneReason(l lanes.Lane) {
	if l.Reason != "" {
		p.add("        " + p.th.Paint(Fit(Clean(l.Reason), p.width-8), Faint))
	}
}

func (p *statusPage) people() {
	p.section("People")
	parts := []string{Count(p.s.Users, "user", "users")}
	if o := p.s.Sessions; o != nil {
		parts = append(parts, p.th.Show(Cell{Text: Count(o.Online, "session", "sessions") + " online", Symbol: Full, Tone: Good}))
		if o.Offline > 0 {
			parts = append(parts, p.th.Show(Cell{Text: fmt.Sprintf("%d offline", o.Offline), Symbol: Empty, Tone: Warn}))
		}
		if o.Closing > 0 {
			parts = append(parts, p.th.Show(Cell{Text: fmt.Sprintf("%d closing", o.Closing), Symbol: Busy, Tone: Notice}))
		}
	}
	p.add("  " + strings.Join(parts, "   "))
}

// services names the healthy ones in a row and gives the others a line each.
func (p *statusPage) services() {
	if len(p.s.Services) == 0 {
		return
	}
	p.section("Services")
	var fine []string
	var others []supervisor.Service
	for _, s := range p.s.Services {
		if s.State == "ready" || s.State == "running" {
			c := ServiceState(s.State)
			fine = append(fine, p.th.Paint(p.th.Mark(c.Symbol), c.Tone)+" "+Clean(s.Name))
		} else {
			others = append(others, s)
		}
	}
	for _, line := range fold(fine, p.width-2, "   ") {
		p.add("  " + line)
	}
	name := 0
	for _, s := range others {
		name = max(name, Width(s.Name))
	}
	for _, s := range others {
		c := ServiceState(s.State)
		line := p.th.Paint(p.th.Mark(c.Symbol), c.Tone) + " " + Pad(Clean(s.Name), name, false) + "  " + p.th.Paint(s.State, c.Tone)
		why := s.Reason
		if s.NextStartAt != nil {
			why = strings.TrimPrefix(why+", starts "+Until(*s.NextStartAt, p.now), ", ")
		}
		p.add("  " + line + "  " + p.th.Paint(Fit(Clean(why), max(10, p.width-Width(line)-4)), Faint))
	}
	if p.detail >= Wide {
		p.add("")
		for _, line := range Lines(Services().At(Wide), p.s.Services, p.now, 0, p.th) {
			p.add("  " + line)
		}
	}
}

func (p *statusPage) problems() {
	if len(p.s.Problems) == 0 {
		return
	}
	p.section("Problems")
	for _, pr := range p.s.Problems {
		for i, line := range wrap(Clean(pr.What), p.width-4) {
			mark := " "
			if i == 0 {
				mark = p.th.Paint(p.th.Mark(Cross), Bad)
			}
			p.add("  " + mark + " " + line)
		}
		if pr.Hint != "" {
			p.add("    " + p.th.Paint(p.th.Mark(Arrow), Notice) + " " + Clean(pr.Hint))
		}
	}
}

// fold joins words into lines of at most width cells.
func fold(words []string, width int, sep string) []string {
	var lines []string
	line := ""
	for _, w := range words {
		switch {
		case line == "":
			line = w
		case Width(line)+len(sep)+Width(w) > width:
			lines = append(lines, line)
			line = w
		default:
			line += sep + w
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

func wrap(s string, width int) []string {
	if out := fold(strings.Fields(s), width, " "); len(out) > 0 {
		return out
	}
	return []string{""}
}

// StatusTabs is a status for scripts: kind, name, state and detail, separated
// by tabs.
func StatusTabs(s *control.Status) []string {
	health := "healthy"
	if !s.Healthy {
		health = "unhealthy"
	}
	row := func(cells ...string) string {
		for i, c := range cells {
			cells[i] = Clean(c)
		}
		return strings.Join(cells, "\t")
	}
	out := []string{row("vpnd", s.Version, health, s.Endpoint)}
	for _, l := range s.Lanes {
		out = append(out, row("lane", string(l.Name), l.State, l.Reason))
	}
	for _, v := range s.Services {
		out = append(out, row("service", v.Name, v.State, v.Reason))
	}
	out = append(out, row("users", "all", fmt.Sprint(s.Users), ""))
	if o := s.Sessions; o != nil {
		out = append(out, row("sessions", "online", fmt.Sprint(o.Online), ""), row("sessions", "offline", fmt.Sprint(o.Offline), ""),
			row("sessions", "closing", fmt.Sprint(o.Closing), ""))
	}
	for _, p := range s.Problems {
		out = append(out, row("problem", "-", p.What, p.Hint))
	}
	return out
}
