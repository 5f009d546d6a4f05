package logstore

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

// Bounds of an analysis.
const (
	MaxBy     = 5       // fields of one analysis
	maxGroups = 100_000 // different groups in memory
)

// Group is one combination of values and how many records have it.
type Group struct {
	Values []string // as many as there are fields; empty where a record has none
	Count  int64
}

// Bin is one bucket of a histogram, of one value when it is split.
type Bin struct {
	Start time.Time
	Value string
	Count int64
}

// Count is how many records match.
func (s *Store) Count(ctx context.Context, q logquery.Query, l Limits) (int64, error) {
	g, err := s.group(ctx, q, l, "count", grouping{})
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, c := range g {
		n += *c
	}
	return n, nil
}

// Stats counts records by the values of fields, most frequent first. total is
// of all groups, also those beyond the limit of rows.
func (s *Store) Stats(ctx context.Context, q logquery.Query, l Limits, by ...string) (groups []Group, total int64, err error) {
	by, err = fieldNames(by)
	if err != nil {
		return nil, 0, err
	}
	g, err := s.group(ctx, q, l, "stats", grouping{by: by})
	if err != nil {
		return nil, 0, err
	}
	groups, total = ranked(g, len(by), l.rows())
	return groups, total, nil
}

// Top is the n most frequent values of a field, among the records that have it.
func (s *Store) Top(ctx context.Context, q logquery.Query, l Limits, field string, n int) (groups []Group, total int64, err error) {
	by, err := fieldNames([]string{field})
	if err != nil {
		return nil, 0, err
	}
	g, err := s.group(ctx, q, l, "top", grouping{by: by, present: true})
	if err != nil {
		return nil, 0, err
	}
	if n <= 0 || n > l.rows() {
		n = l.rows()
	}
	groups, total = ranked(g, 1, n)
	return groups, total, nil
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
	counts, err := s.group(ctx, q, l, "histogram", g)
	if err != nil {
		return nil, err
	}
	out := make([]Bin, 0, len(counts))
	for key, n := range counts {
		start := int64(binary.BigEndian.Uint64([]byte(key[:8]))) * width
		b := Bin{Start: microTime(start), Count: *n}
		if by != "" {
			b.Value = splitKey(key[8:], 1)[0]
		}
		out = append(out, b)
	}
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

func ranked(counts map[string]*int64, fields, limit int) ([]Group, int64) {
	out := make([]Group, 0, len(counts))
	total := int64(0)
	for key, n := range counts {
		out = append(out, Group{splitKey(key, fields), *n})
		total += *n
	}
	slices.SortFunc(out, func(a, b Group) int { return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Values, b.Values)) })
	return out[:min(len(out), limit)], total
}

// A group's key is the bucket's number in eight bytes, if there are buckets,
// then each value with its length.
func appendBucket(key []byte, n int64) []byte { return binary.BigEndian.AppendUint64(key, uint64(n)) }

func splitKey(key string, fields int) []string {
	r := reader{b: key}
	out := make([]string, fields)
	for i := range out {
		out[i] = r.string()
	}
	return out
}

// grouping says what records are counted by.
type grouping struct {
	bucket  int64 // microseconds; 0: none
	by      []string
	present bool // leave out records without the field
}

type counts map[string]*int64

func (c counts) add(key []byte, n int64) error {
	if p := c[string(key)]; p != nil {
		*p += n
		return nil
	}
	if len(c) >= maxGroups {
		return fault.New(fault.Exhausted, "there are more than %d different groups", maxGroups).WithReason("groups").
			WithHint("ask about a shorter time, a wider bucket, or a field with fewer values")
	}
	c[string(key)] = &n
	return nil
}

// group counts the records of all days that match.
func (s *Store) group(ctx context.Context, q logquery.Query, l Limits, what string, g grouping) (counts, error) {
	ctx, done := s.limited(ctx, l, what, q)
	defer done()
	p := newPlan(q)
	total := counts{}
	for _, d := range s.dayList(p.since, p.until) {
		part := counts{}
		ok, err := s.readDay(ctx, d, func(c *conn) error {
			sc, err := s.newScan(ctx, d, c, p)
			if err != nil {
				return err
			}
			return sc.count(g, part)
		})
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		for key, n := range part {
			if err := total.add([]byte(key), *n); err != nil {
				return nil, err
			}
		}
	}
	return total, nil
}

func (sc *scan) count(g grouping, into counts) error {
	segs, err := sc.segments()
	if err != nil {
		return err
	}
	minis, err := sc.minis()
	if err != nil {
		return err
	}
	var key []byte
	for _, m := range minis {
		err := sc.found(m, func(r *row) error {
			var ok bool
			if key, ok = g.key(key[:0], r); !ok {
				return nil
			}
			return into.add(key, 1)
		})
		if err != nil {
			return err
		}
	}
	quick := g.rolled(sc.p)
	for _, seg := range segs {
		if quick && sc.covers(seg) {
			if done, err := sc.rollup(seg, g, into); done || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
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
			if err := g.block(b, set, into); err != nil {
				return err
			}
		}
	}
	return nil
}

// key is the group of one record; not ok: it is not counted.
func (g *grouping) key(key []byte, r *row) ([]byte, bool) {
	if g.bucket != 0 {
		key = appendBucket(key, floorDiv(r.id.Time, g.bucket))
	}
	for _, name := range g.by {
		v, ok := r.rec.Get(name)
		if !ok && g.present {
			return key, false
		}
		key = appendString(key, v)
	}
	return key, true
}

// block counts the rows of set. Rows are in the order of time, so codes are
// counted for a bucket at a time, and their texts looked at once for each.
func (g *grouping) block(b *block, set bitset, into counts) error {
	views := make([]*view, len(g.by))
	var odd bitset
	for i, name := range g.by {
		v, err := b.view(name)
		if err != nil {
			return err
		}
		views[i] = v
		if v.odd != nil {
			if odd == nil {
				odd = newBitset(b.meta.n)
			}
			odd.or(v.odd)
		}
	}
	if odd != nil {
		odd.and(set)
		set = slices.Clone(set)
		set.andNot(odd)
		if err := g.odd(b, odd, into); err != nil {
			return err
		}
	}
	if g.bucket == 0 {
		return g.run(views, set, 0, b.meta.n, into, nil)
	}
	times, err := b.column(colTime)
	if err != nil {
		return err
	}
	for i := set.next(0); i >= 0; {
		n := floorDiv(times.int(i), g.bucket)
		end := b.meta.n
		if b.meta.tmax >= (n+1)*g.bucket {
			end = max(times.search((n+1)*g.bucket), i+1)
		}
		if err := g.run(views, set, i, end, into, appendBucket(nil, n)); err != nil {
			return err
		}
		if end >= b.meta.n {
			break
		}
		i = set.next(end)
	}
	return nil
}

func (g *grouping) odd(b *block, rows bitset, into counts) error {
	var key []byte
	return b.records(members(rows, false), func(_ int, r row) error {
		var ok bool
		if key, ok = g.key(key[:0], &r); !ok {
			return nil
		}
		return into.add(key, 1)
	})
}

// run counts the rows [from, to) of set into groups that begin with prefix.
func (g *grouping) run(views []*view, set bitset, from, to int, into counts, prefix []byte) error {
	switch len(views) {
	case 0:
		n := int64(0)
		if from == 0 && to >= len(set)*64 {
			n = int64(set.count())
		} else {
			for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
				n++
			}
		}
		if n == 0 {
			return nil
		}
		return into.add(prefix, n)
	case 1:
		return g.runOne(views[0], set, from, to, into, prefix)
	}
	local := map[[MaxBy]int16]int64{}
	for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
		var codes [MaxBy]int16
		for k, v := range views {
			codes[k] = -1
			if code, ok := v.code(i); ok {
				codes[k] = int16(code)
			}
		}
		local[codes]++
	}
	for codes, n := range local {
		key := slices.Clone(prefix)
		for k, v := range views {
			text := ""
			if codes[k] >= 0 {
				text = v.val(int(codes[k]))
			}
			key = appendString(key, text)
		}
		if err := into.add(key, n); err != nil {
			return err
		}
	}
	return nil
}

func (g *grouping) runOne(v *view, set bitset, from, to int, into counts, prefix []byte) error {
	local := make([]int64, v.codes())
	none := int64(0)
	for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
		if code, ok := v.code(i); ok {
			local[code]++
		} else {
			none++
		}
	}
	key := slices.Clone(prefix)
	for code, n := range local {
		if n == 0 {
			continue
		}
		if err := into.add(appendString(key[:len(prefix)], v.val(code)), n); err != nil {
			return err
		}
	}
	if none == 0 || g.present {
		return nil
	}
	return into.add(appendString(key[:len(prefix)], ""), none)
}
