package logstore

import (
	"context"
	"database/sql/driver"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

// scan asks one day about one plan, over one state of its file.
type scan struct {
	ctx  context.Context
	s    *Store
	d    *day
	c    *conn
	p    *plan
	keys map[string]int
}

func (s *Store) newScan(ctx context.Context, d *day, c *conn, p *plan) (*scan, error) {
	keys, err := readKeys(c)
	return &scan{ctx: ctx, s: s, d: d, c: c, p: p, keys: keys}, err
}

// check ends a query whose caller has gone, and lets a day be removed.
func (sc *scan) check() error {
	if sc.ctx.Err() != nil {
		return ended(sc.ctx)
	}
	if sc.d.gone.Load() {
		return errGone
	}
	return nil
}

// segments gives those segments that may hold rows of the plan.
func (sc *scan) segments() ([]*segment, error) {
	var out []*segment
	err := sc.c.each(segmentQuery+" WHERE tmax>=? AND tmin<? AND levels&?<>0", func(r []driver.Value) error {
		seg, err := readSegment(r)
		out = append(out, seg)
		return err
	}, sc.p.since, sc.p.until, int64(sc.p.levels))
	return out, err
}

// minis gives what waits to become segments.
func (sc *scan) minis() ([]miniMeta, error) {
	var out []miniMeta
	err := sc.c.each("SELECT no, rows, bytes, tmin, tmax, levels FROM mini WHERE tmax>=? AND tmin<? AND levels&?<>0", func(r []driver.Value) error {
		out = append(out, miniMeta{integer(r[0]), int(integer(r[1])), int(integer(r[2])), integer(r[3]), integer(r[4]), int(integer(r[5]))})
		return nil
	}, sc.p.since, sc.p.until, int64(sc.p.levels))
	return out, err
}

// found calls fn for the matching rows of a mini, in order of arrival.
func (sc *scan) found(m miniMeta, fn func(r *row) error) error {
	if err := sc.check(); err != nil {
		return err
	}
	rows, err := sc.s.rows(sc.d, sc.c, m.no)
	if err != nil {
		return err
	}
	one := func(i int) error {
		r := &rows[i]
		if r.id.Time < sc.p.since || r.id.Time >= sc.p.until || !sc.p.match(&r.rec) {
			return nil
		}
		return fn(r)
	}
	if sc.p.needle != "" && len(rows) > 16 {
		if h := sc.s.cache.haystack(sc.d, m.no); h != nil {
			return h.rows(sc.p.needle, one)
		}
	}
	for i := range rows {
		if err := one(i); err != nil {
			return err
		}
	}
	return nil
}

// candidates are the rows of a segment that the lexicon leaves over. nil: all.
// none tells that there are none.
func (sc *scan) candidates(seg *segment) (set bitset, none bool, err error) {
	if err := sc.check(); err != nil {
		return nil, false, err
	}
	for i := range sc.p.words {
		t := &sc.p.words[i]
		got := newBitset(seg.n)
		for _, list := range t.any {
			one, err := sc.all(seg, list)
			if err != nil {
				return nil, false, err
			}
			if one != nil {
				got.or(one)
			}
		}
		if t.not {
			if set == nil {
				set = newBitset(seg.n)
				set.fill(seg.n)
			}
			set.andNot(got)
		} else if set == nil {
			set = got
		} else {
			set.and(got)
		}
		if set.empty() {
			return nil, true, nil
		}
	}
	return set, false, nil
}

// all gives the rows that have every word of the list, nil for none.
func (sc *scan) all(seg *segment, list []word) (bitset, error) {
	var set bitset
	for _, w := range list {
		one := newBitset(seg.n)
		ok, err := sc.c.lookup(seg.no, seg.n, w.token, w.prefix, one)
		if err != nil || !ok {
			return nil, err
		}
		if set == nil {
			set = one
			continue
		}
		if set.and(one); set.empty() {
			return nil, nil
		}
	}
	return set, nil
}

// matching gives the rows of a block that match, nil for none. cand are the
// candidates of the whole segment.
func (sc *scan) matching(b *block, cand bitset) (bitset, error) {
	if err := sc.check(); err != nil {
		return nil, err
	}
	m := b.meta
	if m.tmax < sc.p.since || m.tmin >= sc.p.until {
		return nil, nil
	}
	var set bitset
	if cand == nil {
		set = newBitset(m.n)
		set.fill(m.n)
	} else if set = cand.slice(m.start, m.n); set.empty() {
		return nil, nil
	}
	if m.tmin < sc.p.since || m.tmax >= sc.p.until {
		if err := sc.inTime(b, set); err != nil {
			return nil, err
		}
	}
	for _, f := range sc.p.columns {
		if set.empty() {
			return nil, nil
		}
		if err := f.filter(b, set); err != nil {
			return nil, err
		}
	}
	if set.empty() {
		return nil, nil
	}
	for _, match := range sc.p.phrases {
		if err := b.keep(set, set, match); err != nil {
			return nil, err
		}
	}
	if set.empty() {
		return nil, nil
	}
	return set, nil
}

func (sc *scan) inTime(b *block, set bitset) error {
	c, err := b.column(colTime)
	if err != nil {
		return err
	}
	from, to := c.search(sc.p.since), c.search(sc.p.until)
	for i := set.next(0); i >= 0; i = set.next(i + 1) {
		if i < from || i >= to {
			set.clear(i)
		}
	}
	return nil
}

// filter takes the rows out of set that the term does not hold for. Each value
// of the block is asked about once.
func (f *fieldTerm) filter(b *block, set bitset) error {
	v, err := b.view(f.field)
	if err != nil {
		return err
	}
	odd := bitset(nil)
	known := make([]int8, v.codes())
	none := int8(0)
	numbers := f.term.Op != logquery.Equal && v.col != nil && v.col.form == formInts
	for i := set.next(0); i >= 0; i = set.next(i + 1) {
		if v.odd != nil && v.odd.has(i) {
			if odd == nil {
				odd = newBitset(b.meta.n)
			}
			odd.set(i)
			continue
		}
		code, ok := v.code(i)
		state := &none
		if ok {
			state = &known[code]
		}
		if *state == 0 {
			*state = 1
			if ok && numbers && f.holdsInt(v.col.int(code)) || !(ok && numbers) && f.holds(v, code, ok) {
				*state = 2
			}
		}
		if *state == 1 {
			set.clear(i)
		}
	}
	if odd == nil {
		return nil
	}
	return b.keep(set, odd, f.match)
}

// holdsInt is holds for a whole number that needs no reading. Those of a column
// have at most 18 digits, and become the same float64 as their text.
func (f *fieldTerm) holdsInt(n int64) bool {
	x, want := float64(n), f.term.Number[0]
	is := false
	switch f.term.Op {
	case logquery.Less:
		is = x < want
	case logquery.LessEqual:
		is = x <= want
	case logquery.Greater:
		is = x > want
	case logquery.GreaterEqual:
		is = x >= want
	}
	return is != f.term.Not
}

func (f *fieldTerm) holds(v *view, code int, ok bool) bool {
	var r logline.Record
	switch {
	case !ok:
	case f.field == "level":
		r.Level = logline.Level(code)
	case f.slot >= 0:
		*slotOf(&r, f.slot) = v.val(code)
	default:
		r.Fields = []logline.Field{{Key: f.field, Value: v.val(code)}}
	}
	return f.match(&r)
}

// keep takes those of the rows out of set whose record does not match.
func (b *block) keep(set, rows bitset, match func(*logline.Record) bool) error {
	var list []int
	for i := rows.next(0); i >= 0; i = rows.next(i + 1) {
		list = append(list, i)
	}
	return b.records(list, func(i int, r row) error {
		if !match(&r.rec) {
			set.clear(i)
		}
		return nil
	})
}
