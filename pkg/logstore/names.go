package logstore

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

// FieldCount is a name that queries can use, and how many records have it.
type FieldCount struct {
	Name  string
	Count int64
}

// Fields gives the names that matching records have, most frequent first. time
// is not among them, since every record has it.
func (s *Store) Fields(ctx context.Context, q logquery.Query, l Limits) ([]FieldCount, error) {
	ctx, done := s.limited(ctx, l, "fields", q)
	defer done()
	p := newPlan(q)
	total := map[string]int64{}
	for _, d := range s.dayList(p.since, p.until) {
		part := map[string]int64{}
		ok, err := s.readDay(ctx, d, func(c *conn) error {
			sc, err := s.newScan(ctx, d, c, p)
			if err != nil {
				return err
			}
			return sc.fieldCounts(part)
		})
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		for name, n := range part {
			total[name] += n
		}
		if len(total) > maxGroups {
			return nil, fault.New(fault.Exhausted, "there are more than %d different fields", maxGroups).WithReason("groups").
				WithHint("ask about a shorter time, or one service")
		}
	}
	out := make([]FieldCount, 0, len(total))
	for name, n := range total {
		out = append(out, FieldCount{name, n})
	}
	slices.SortFunc(out, func(a, b FieldCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), l.rows())], nil
}

func (sc *scan) fieldCounts(into map[string]int64) error {
	segs, err := sc.segments()
	if err != nil {
		return err
	}
	minis, err := sc.minis()
	if err != nil {
		return err
	}
	for _, m := range minis {
		err := sc.inMini(m, func(r *row) error { countNames(&r.rec, into); return nil })
		if err != nil {
			return err
		}
	}
	for _, ch := range chunks(segs) {
		if len(sc.p.query.Terms) == 0 && sc.p.holds(ch) {
			if done, err := sc.zoneCounts(ch, into); done || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		set, err := sc.rows(ch)
		if err != nil {
			return err
		}
		if set == nil {
			continue
		}
		if err := sc.nameCounts(ch, set, into); err != nil {
			return err
		}
	}
	return nil
}

// zoneCounts takes the counts of a whole chunk from its zones. done is false
// when these do not tell.
func (sc *scan) zoneCounts(ch *chunk, into map[string]int64) (done bool, err error) {
	if err := sc.check(); err != nil {
		return false, err
	}
	zones, err := sc.c.segmentZones(ch.seg)
	if err != nil {
		return false, err
	}
	exact := true
	level, more, err := eachZone(zones[ch.at], func(name string, z *zone) bool {
		exact = z.flags&zoneLoose == 0 && name != "level"
		return exact
	})
	if more || !exact || err != nil {
		return false, err
	}
	if level > 0 {
		into["level"] += int64(level)
	}
	_, _, err = eachZone(zones[ch.at], func(name string, z *zone) bool {
		if n, ok := into[name]; ok {
			into[name] = n + int64(z.rows)
		} else {
			into[strings.Clone(name)] = int64(z.rows)
		}
		return true
	})
	return true, err
}

func countNames(r *logline.Record, into map[string]int64) {
	seen := map[string]bool{}
	if r.Level != logline.Unknown {
		seen["level"] = true
	}
	for name := range r.Pairs() {
		seen[name] = true
	}
	for name := range seen {
		into[name]++
	}
}

// nameCounts counts by the rows' shapes and by which of their slots are empty.
func (sc *scan) nameCounts(ch *chunk, set bitset, into map[string]int64) error {
	whole := sc.chunk(ch)
	shapes, all, err := whole.shape()
	if err != nil {
		return err
	}
	perShape := make([]int64, len(all))
	for i := set.next(0); i >= 0; i = set.next(i + 1) {
		perShape[shapes.code(i)]++
	}
	for i, n := range perShape {
		if n == 0 {
			continue
		}
		for k, f := range all[i] {
			first := slices.IndexFunc(all[i], func(o shapeField) bool { return o.key == f.key }) == k
			if first && f.key != "level" && slotIndex(f.key) < 0 {
				into[f.key] += n
			}
		}
	}
	have, err := sc.slotZones(ch)
	if err != nil {
		return err
	}
	for _, name := range append(slotNames[:], "level") {
		switch has, known := have[name]; {
		case known && has == 0:
			continue
		case known && has == ch.n:
			into[name] += int64(set.count())
			continue
		}
		count := func(p *part, rows bitset) error {
			v, err := p.view(name)
			if err != nil {
				return err
			}
			n := int64(0)
			for i := rows.next(0); i >= 0; i = rows.next(i + 1) {
				if _, ok := v.code(i); ok || v.odd != nil && v.odd.has(i) {
					n++
				}
			}
			if n > 0 {
				into[name] += n
			}
			return nil
		}
		if slot := slotIndex(name); slot >= 0 && sc.isWide(ch, name) {
			err = sc.eachBlock(ch, set, false, func(b *part, _, _ int, rows bitset) (bool, error) { return true, count(b, rows) })
		} else {
			err = count(whole, set)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// slotZones tells how many rows of a chunk have each slot, where its zones do.
func (sc *scan) slotZones(ch *chunk) (map[string]int, error) {
	zones, err := sc.c.segmentZones(ch.seg)
	if err != nil {
		return nil, err
	}
	have := make(map[string]int, len(slotNames))
	for _, name := range slotNames {
		have[name] = 0
	}
	_, _, err = eachZone(zones[ch.at], func(name string, z *zone) bool {
		if slotIndex(name) < 0 {
			return true
		}
		have[name] = z.rows
		if z.flags&zoneLoose != 0 {
			delete(have, name)
		}
		return true
	})
	return have, err
}

// ServiceCount is what a service has written.
type ServiceCount struct {
	Name             string
	Count            int64
	Warnings, Errors int64 // of level warn, and of error and above
	Last             time.Time
}

// Services gives the services of matching records, by name.
func (s *Store) Services(ctx context.Context, q logquery.Query, l Limits) ([]ServiceCount, error) {
	t, err := s.group(ctx, q, l, "services", grouping{by: []string{"service", "level"}})
	if err != nil {
		return nil, err
	}
	byName := map[string]*ServiceCount{}
	t.each(func(_ int64, v []string, g group) {
		c := byName[v[0]]
		if c == nil {
			c = &ServiceCount{Name: v[0]}
			byName[v[0]] = c
		}
		c.Count += g.n
		if last := microTime(g.last); last.After(c.Last) || c.Count == g.n {
			c.Last = last
		}
		switch v[1] {
		case "warn":
			c.Warnings += g.n
		case "error", "fatal":
			c.Errors += g.n
		}
	}, 1)
	out := make([]ServiceCount, 0, len(byName))
	for _, c := range byName {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b ServiceCount) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), l.rows())], nil
}
