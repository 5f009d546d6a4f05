package logstore

import (
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

// matches is what a chunk has of a plan: rows, and terms that must still be
// asked about them in the blocks.
type matches struct {
	set  bitset
	left []*fieldTerm
}

// fewRows is how many candidates are asked about in the blocks, which will be
// read anyway to show them, and not in columns of the whole chunk.
const fewRows = 6

// matching gives the rows of a chunk that may match; none tells that there are
// none. confirm decides.
func (sc *scan) matching(ch *chunk) (m matches, none bool, err error) {
	set, none, err := sc.candidates(ch)
	if none || err != nil {
		return m, none, err
	}
	if set == nil {
		set = sc.bits(bitsRows, ch.n)
		set.fill(ch.n)
	}
	m.set = set
	whole := sc.chunk(ch)
	if !sc.p.holds(ch) {
		if err := sc.inTime(whole, set); err != nil {
			return m, false, err
		}
	}
	few := sc.paging && len(sc.p.columns) > 0 && set.count() <= fewRows
	for _, f := range sc.p.columns {
		if few || sc.isWide(ch, f.field) {
			m.left = append(m.left, f)
			continue
		}
		odd, err := f.filter(whole, set)
		if err != nil {
			return m, false, err
		}
		if odd != nil {
			if err := sc.keep(ch, set, odd, f.match); err != nil {
				return m, false, err
			}
		}
		if set.empty() {
			break
		}
	}
	return m, set.empty(), nil
}

// isWide tells whether a field's values are only in the blocks.
func (sc *scan) isWide(ch *chunk, name string) bool {
	col, ok := sc.keys[name]
	if slot := slotIndex(name); slot >= 0 {
		col, ok = colSlot+slot, true
	}
	if !ok {
		return false
	}
	for _, c := range ch.wide {
		if c == col {
			return true
		}
	}
	return false
}

// confirm takes the rows of a block out of set that do not match.
func (sc *scan) confirm(b *part, m *matches, set bitset) error {
	for _, f := range m.left {
		odd, err := f.filter(b, set)
		if err != nil {
			return err
		}
		if odd != nil {
			if err := b.keep(set, odd, f.match); err != nil {
				return err
			}
		}
	}
	for _, match := range sc.p.phrases {
		if set.empty() {
			return nil
		}
		if err := b.keep(set, set, match); err != nil {
			return err
		}
	}
	return nil
}

// rows gives the rows of a chunk that match, nil for none.
func (sc *scan) rows(ch *chunk) (bitset, error) {
	m, none, err := sc.matching(ch)
	if none || err != nil {
		return nil, err
	}
	if len(m.left) == 0 && len(sc.p.phrases) == 0 {
		return m.set, nil
	}
	err = sc.eachBlock(ch, m.set, false, func(b *part, _, from int, rows bitset) (bool, error) {
		err := sc.confirm(b, &m, rows)
		m.set.put(rows, from, b.n)
		return true, err
	})
	if err != nil || m.set.empty() {
		return nil, err
	}
	return m.set, nil
}

func (sc *scan) inTime(p *part, set bitset) error {
	c, err := p.column(colTime)
	if err != nil {
		return err
	}
	from, to := c.search(sc.p.since), c.search(sc.p.until)
	for i := set.next(0); i >= 0; i = set.next(i + 1) {
		if i < from {
			set.clear(i)
		} else if i >= to {
			set.clear(i)
		}
	}
	return nil
}

// filter takes the rows out of set that the term does not hold for, except odd
// ones, whose records must be looked at. Each value is asked about once.
func (f *fieldTerm) filter(p *part, set bitset) (odd bitset, err error) {
	v, err := p.view(f.field)
	if err != nil {
		return nil, err
	}
	if v.odd != nil {
		odd = newBitset(p.n)
		odd.or(v.odd)
		odd.and(set)
		if odd.empty() {
			odd = nil
		}
	}
	if odd == nil && v.col != nil && v.col.form == formInts && f.term.Op != logquery.Equal && v.at == nil {
		f.numbers(v.col, set)
		return nil, nil
	}
	known := make([]int8, v.codes())
	none := int8(0)
	ints := f.term.Op != logquery.Equal && v.col != nil && v.col.form == formInts
	for i := set.next(0); i >= 0; i = set.next(i + 1) {
		if odd != nil && odd.has(i) {
			continue
		}
		code, ok := v.code(i)
		state := &none
		if ok {
			state = &known[code]
		}
		if *state == 0 {
			*state = 1
			if ok && ints && f.holdsInt(v.col.int(code)) || !(ok && ints) && f.holds(v, code, ok) {
				*state = 2
			}
		}
		if *state == 1 {
			set.clear(i)
		}
	}
	return odd, nil
}

// numbers is filter for a column where each row has a whole number. Those that
// compare true are one range of the numbers, found by halving.
func (f *fieldTerm) numbers(c *column, set bitset) {
	top := uint64(1)<<(8*min(c.width, 7)) - 1
	if c.width > 7 {
		top = 1 << 62 // 18 digits are less
	}
	// The term without its Not is false and then true, or the other way round.
	rising := f.term.Op == logquery.Greater || f.term.Op == logquery.GreaterEqual
	lo, hi := uint64(0), top // the first that the second half holds for is in [lo, hi+1]
	second := func(d uint64) bool { return f.compares(c.base+int64(d)) == rising }
	split := top
	none := !second(top)
	if !none {
		for lo < hi {
			m := lo + (hi-lo)/2
			if second(m) {
				hi = m
			} else {
				lo = m + 1
			}
		}
		split = lo
	}
	want := rising != f.term.Not // rows of the second half stay
	for w, x := range set {
		if x == 0 {
			continue
		}
		var keep uint64
		for k, end := 0, min(64, c.n-64*w); k < end; k++ {
			i, d := 64*w+k, uint64(0)
			if c.width == 2 { // the usual one
				d = uint64(c.body[2*i]) | uint64(c.body[2*i+1])<<8
			} else {
				d = fixed(c.body, i, c.width)
			}
			if (!none && d >= split) == want {
				keep |= 1 << k
			}
		}
		set[w] = x & keep
	}
}

// compares is the term without its Not for a whole number that needs no
// reading. Those of a column have at most 18 digits, and become the same
// float64 as their text.
func (f *fieldTerm) compares(n int64) bool {
	x, want := float64(n), f.term.Number[0]
	switch f.term.Op {
	case logquery.Less:
		return x < want
	case logquery.LessEqual:
		return x <= want
	case logquery.Greater:
		return x > want
	}
	return x >= want
}

func (f *fieldTerm) holdsInt(n int64) bool { return f.compares(n) != f.term.Not }

func (f *fieldTerm) holds(v *view, code int, ok bool) bool {
	var r logline.Record
	switch {
	case !ok:
	case f.slot >= 0:
		*slotOf(&r, f.slot) = v.val(code)
	default:
		r.Fields = []logline.Field{{Key: f.field, Value: v.val(code)}}
	}
	return f.match(&r)
}

// keep takes those of rows out of set whose record does not match.
func (p *part) keep(set, rows bitset, match func(*logline.Record) bool) error {
	return p.records(members(rows, false), func(i int, r row) error {
		if !match(&r.rec) {
			set.clear(i)
		}
		return nil
	})
}

// keep is the same for rows of a chunk.
func (sc *scan) keep(ch *chunk, set, rows bitset, match func(*logline.Record) bool) error {
	return sc.records(ch, rows, func(i int, r *row) error {
		if !match(&r.rec) {
			set.clear(i)
		}
		return nil
	})
}

// records reads rows of a chunk.
func (sc *scan) records(ch *chunk, rows bitset, fn func(i int, r *row) error) error {
	return sc.eachBlock(ch, rows, false, func(b *part, _, from int, part bitset) (bool, error) {
		return true, b.records(members(part, false), func(i int, r row) error { return fn(from+i, &r) })
	})
}
