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

// Bounds of an analysis.
const (
	MaxBy         = 5       // fields of one analysis
	maxGroups     = 100_000 // different groups in memory
	maxGroupBytes = 8 << 20 // of their values
)

// Group is one combination of values and how many records have it.
type Group struct {
	Values      []string // as many as there are fields; empty where a record has none
	Count       int64
	First, Last time.Time // of the records that were counted
}

// Bin is one bucket of a histogram, of one value when it is split.
type Bin struct {
	Start time.Time
	Value string
	Count int64
}

// Count is how many records match.
func (s *Store) Count(ctx context.Context, q logquery.Query, l Limits) (int64, error) {
	t, err := s.group(ctx, q, l, "count", grouping{})
	if err != nil {
		return 0, err
	}
	return t.total(), nil
}

// Stats counts records by the values of fields, most frequent first. total is
// of all groups, also those beyond the limit of rows.
func (s *Store) Stats(ctx context.Context, q logquery.Query, l Limits, by ...string) (groups []Group, total int64, err error) {
	by, err = fieldNames(by)
	if err != nil {
		return nil, 0, err
	}
	t, err := s.group(ctx, q, l, "stats", grouping{by: by})
	if err != nil {
		return nil, 0, err
	}
	return t.ranked(l.rows()), t.total(), nil
}

// Top is the n most frequent values of a field, among the records that have it.
func (s *Store) Top(ctx context.Context, q logquery.Query, l Limits, field string, n int) (groups []Group, total int64, err error) {
	by, err := fieldNames([]string{field})
	if err != nil {
		return nil, 0, err
	}
	t, err := s.group(ctx, q, l, "top", grouping{by: by, present: true})
	if err != nil {
		return nil, 0, err
	}
	if n <= 0 || n > l.rows() {
		n = l.rows()
	}
	return t.ranked(n), t.total(), nil
}

// Histogram counts records by time, in buckets that begin at whole multiples of
// their width since 1970, and by the values of a field unless by is empty. Only
// buckets with records are given, in the order of time, then value.
func (s *Store) Histogram(ctx context.Context, q logquery.Query, l Limits, bucket time.Duration, by string) ([]Bin, error) {
	width := bucket.Microseconds()
	if width <= 0 || bucket%time.Microsecond != 0 {
		return nil, fault.InvalidField("bucket", "a bucket is at least one microsecond wide, not %s", bucket).WithHint("for example 5m")
	}
	g := grouping{bucket: width}
	if by != "" {
		names, err := fieldNames([]string{by})
		if err != nil {
			return nil, err
		}
		g.by = names
	}
	t, err := s.group(ctx, q, l, "histogram", g)
	if err != nil {
		return nil, err
	}
	out := make([]Bin, 0, len(t.groups))
	t.each(func(bucket int64, values []string, g group) {
		b := Bin{Start: microTime(bucket * width), Count: g.n}
		if by != "" {
			b.Value = values[0]
		}
		out = append(out, b)
	}, 1)
	slices.SortFunc(out, func(a, b Bin) int { return cmp.Or(a.Start.Compare(b.Start), strings.Compare(a.Value, b.Value)) })
	return out, nil
}

func fieldNames(by []string) ([]string, error) {
	if len(by) == 0 || len(by) > MaxBy {
		return nil, fault.InvalidField("by", "one to %d fields, not %d", MaxBy, len(by))
	}
	out := make([]string, len(by))
	for i, name := range by {
		out[i] = logline.Canonical(name)
		if out[i] == "time" || out[i] == "" {
			return nil, fault.InvalidField("by", "records cannot be grouped by %q", name).WithHint("use histogram for counts over time")
		}
	}
	return out, nil
}

// ranked gives the most frequent groups. Most groups are often rare ones, which
// are passed over before their texts are looked at.
func (t *tally) ranked(limit int) []Group {
	var sizes []int64
	for i := range t.groups {
		if n := t.groups[i].n; n > 0 {
			sizes = append(sizes, n)
		}
	}
	least := int64(0)
	if len(sizes) > limit {
		slices.Sort(sizes)
		least = sizes[len(sizes)-limit]
	}
	var out []Group
	t.each(func(_ int64, values []string, g group) {
		out = append(out, Group{values, g.n, microTime(g.first), microTime(g.last)})
	}, least)
	slices.SortFunc(out, func(a, b Group) int { return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Values, b.Values)) })
	return out[:min(len(out), limit)]
}

func (t *tally) total() (n int64) {
	for _, g := range t.groups {
		n += g.n
	}
	return n
}

// group counts the records of all days that match.
func (s *Store) group(ctx context.Context, q logquery.Query, l Limits, what string, g grouping) (*tally, error) {
	ctx, done := s.limited(ctx, l, what, q)
	defer done()
	p := newPlan(q)
	total := newTally(g)
	for _, d := range s.dayList(p.since, p.until) {
		part := newTally(g)
		ok, err := s.readDay(ctx, d, func(c *conn) error {
			sc, err := s.newScan(ctx, d, c, p)
			if err != nil {
				return err
			}
			return sc.count(part)
		})
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if err := total.merge(part); err != nil {
			return nil, err
		}
	}
	return total, nil
}

func (sc *scan) count(t *tally) error {
	segs, err := sc.segments()
	if err != nil {
		return err
	}
	minis, err := sc.minis()
	if err != nil {
		return err
	}
	for _, m := range minis {
		if err := sc.inMini(m, t.row); err != nil {
			return err
		}
	}
	rolled := t.g.rolled(sc.p)
	plain := t.depth() == 0 && len(sc.p.query.Terms) == 0
	for _, ch := range chunks(segs) {
		if plain && sc.p.holds(ch) {
			if err := t.add(nil, int64(ch.n), ch.tmin, ch.tmax); err != nil {
				return err
			}
			continue
		}
		if rolled && sc.p.covers(ch) {
			done, err := sc.rollup(ch, t)
			if err != nil {
				return err
			}
			if done {
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
		if err := sc.tally(ch, set, t); err != nil {
			return err
		}
	}
	return nil
}

// tally counts rows of a chunk.
func (sc *scan) tally(ch *chunk, set bitset, t *tally) error {
	if t.depth() == 0 {
		return t.add(nil, int64(set.count()), ch.tmin, ch.tmax) // nobody asks when
	}
	for _, name := range t.g.by {
		if sc.isWide(ch, name) {
			return sc.eachBlock(ch, set, false, func(b *part, _, _ int, rows bitset) (bool, error) { return true, t.part(b, rows) })
		}
	}
	whole := sc.chunk(ch)
	odd, err := t.odd(whole, set)
	if err != nil {
		return err
	}
	if odd != nil {
		if err := sc.records(ch, odd, func(_ int, r *row) error { return t.row(r) }); err != nil {
			return err
		}
	}
	return t.rows(whole, set)
}
