package logstore

import (
	"cmp"
	"context"
	"slices"
	"strings"

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
		err := sc.found(m, func(r *row) error { countNames(&r.rec, into); return nil })
		if err != nil {
			return err
		}
	}
	for _, seg := range segs {
		cand, none, err := sc.candidates(seg)
		if err != nil {
			return err
		}
		if none {
			continue
		}
		for i := range seg.blocks {
			b := openBlock(sc.c, sc.keys, seg, i)
			set, err := sc.matching(b, cand)
			if err != nil {
				return err
			}
			if set == nil {
				continue
			}
			if err := b.countNames(set, into); err != nil {
				return err
			}
		}
	}
	return nil
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

// countNames counts by the rows' shapes and by which of their slots are empty.
func (b *block) countNames(set bitset, into map[string]int64) error {
	shapes, all, err := b.shape()
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
	for _, name := range append(slotNames[:], "level") {
		v, err := b.view(name)
		if err != nil {
			return err
		}
		for i := set.next(0); i >= 0; i = set.next(i + 1) {
			if _, ok := v.code(i); ok || v.odd != nil && v.odd.has(i) {
				into[name]++
			}
		}
	}
	for name, n := range into {
		if n == 0 {
			delete(into, name)
		}
	}
	return nil
}

// ServiceCount is what a service has written.
type ServiceCount struct {
	Name             string
	Count            int64
	Warnings, Errors int64 // of level warn, and of error and above
}

// Services gives the services of matching records, by name.
func (s *Store) Services(ctx context.Context, q logquery.Query, l Limits) ([]ServiceCount, error) {
	g, err := s.group(ctx, q, l, "services", grouping{by: []string{"service", "level"}})
	if err != nil {
		return nil, err
	}
	byName := map[string]*ServiceCount{}
	for key, n := range g {
		v := splitKey(key, 2)
		c := byName[v[0]]
		if c == nil {
			c = &ServiceCount{Name: v[0]}
			byName[v[0]] = c
		}
		c.Count += *n
		switch v[1] {
		case "warn":
			c.Warnings += *n
		case "error", "fatal":
			c.Errors += *n
		}
	}
	out := make([]ServiceCount, 0, len(byName))
	for _, c := range byName {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b ServiceCount) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), l.rows())], nil
}
