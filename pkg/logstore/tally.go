package logstore

import (
	"strconv"
	"strings"

	"vpnd/pkg/fault"
)

// grouping says what records are counted by.
type grouping struct {
	bucket  int64 // microseconds; 0: none
	by      []string
	present bool // leave out records without the field
}

// tally counts groups. A group is a path: the number of its bucket, if there
// are buckets, then that of each field's value. Numbers stand for texts, so a
// text is looked at once a chunk and not once a record.
type tally struct {
	g      grouping
	fields []names
	starts map[int64]uint32
	bins   []int64
	steps  []steps
	groups []group
	spare  []uint32 // zeros, see local
	found  []seen   // the same
	texts  int      // bytes of values
	codes  [MaxBy][]uint32
}

// steps numbers paths: each is a shorter path and its end. It is a map with open
// addressing: looking paths up is most of what counting by two fields costs.
type steps struct {
	list  []uint64
	slots []uint32 // 1 + number in list; 0: free
	shift uint
}

func newSteps() steps { return steps{slots: make([]uint32, 1024), shift: 64 - 10} }

func (s *steps) slot(step uint64) uint64 { return step * 0x9e3779b97f4a7c15 >> s.shift }

func (s *steps) id(step uint64) uint32 {
	mask := uint64(len(s.slots) - 1)
	at := s.slot(step)
	for ; s.slots[at] != 0; at = (at + 1) & mask {
		if n := s.slots[at] - 1; s.list[n] == step {
			return n
		}
	}
	n := uint32(len(s.list))
	s.list = append(s.list, step)
	s.slots[at] = n + 1
	if len(s.list)*2 > len(s.slots) {
		s.grow()
	}
	return n
}

func (s *steps) grow() {
	s.slots = make([]uint32, 2*len(s.slots))
	s.shift--
	mask := uint64(len(s.slots) - 1)
	for i, step := range s.list {
		at := s.slot(step)
		for ; s.slots[at] != 0; at = (at + 1) & mask {
		}
		s.slots[at] = uint32(i) + 1
	}
}

type names struct {
	ids     map[string]uint32
	numbers map[int64]uint32 // of some of them
	list    []string
}

type group struct{ n, first, last int64 }

func newTally(g grouping) *tally {
	t := &tally{g: g, fields: make([]names, len(g.by)), starts: map[int64]uint32{}}
	for i := range t.fields {
		t.fields[i].ids, t.fields[i].numbers = map[string]uint32{}, map[int64]uint32{}
	}
	n := len(g.by)
	if g.bucket != 0 {
		n++
	}
	for range n - 1 {
		t.steps = append(t.steps, newSteps())
	}
	return t
}

// value is the number of a field's value.
func (t *tally) value(field int, text string) uint32 {
	f := &t.fields[field]
	id, ok := f.ids[text]
	if !ok {
		id = uint32(len(f.list))
		text = strings.Clone(text) // not the blob that it is from
		f.ids[text] = id
		f.list = append(f.list, text)
		t.texts += len(text)
	}
	return id
}

// number is value for a whole number.
func (t *tally) number(field int, n int64) uint32 {
	f := &t.fields[field]
	id, ok := f.numbers[n]
	if !ok {
		id = t.value(field, strconv.FormatInt(n, 10))
		f.numbers[n] = id
	}
	return id
}

func (t *tally) bucket(n int64) uint32 {
	id, ok := t.starts[n]
	if !ok {
		id = uint32(len(t.bins))
		t.starts[n] = id
		t.bins = append(t.bins, n)
	}
	return id
}

// add counts n records of a group, whose times are from first to last.
func (t *tally) add(key []uint32, n, first, last int64) error {
	if t.texts > maxGroupBytes {
		return fault.New(fault.Exhausted, "the values to count take more than %d MiB", maxGroupBytes>>20).WithReason("groups").
			WithHint("ask about a shorter time, or a field with shorter values")
	}
	at := uint32(0)
	for i, id := range key {
		if i == 0 {
			at = id
			continue
		}
		at = t.steps[i-1].id(uint64(at)<<32 | uint64(id))
	}
	for int(at) >= len(t.groups) {
		if len(t.groups) >= maxGroups {
			return fault.New(fault.Exhausted, "there are more than %d different groups", maxGroups).WithReason("groups").
				WithHint("ask about a shorter time, a wider bucket, or a field with fewer values")
		}
		t.groups = append(t.groups, group{first: maxMicro, last: minMicro})
	}
	g := &t.groups[at]
	g.n += n
	g.first, g.last = min(g.first, first), max(g.last, last)
	return nil
}

// key is the path of a group.
func (t *tally) key(at int, key []uint32) {
	for i := len(key) - 1; i > 0; i-- {
		step := t.steps[i-1].list[at]
		key[i], at = uint32(step), int(step>>32)
	}
	if len(key) > 0 {
		key[0] = uint32(at)
	}
}

func (t *tally) depth() int {
	if t.g.bucket != 0 {
		return len(t.fields) + 1
	}
	return len(t.fields)
}

// each calls fn for every group of at least least records with its bucket and
// values.
func (t *tally) each(fn func(bucket int64, values []string, g group), least int64) {
	key := make([]uint32, t.depth())
	for i, g := range t.groups {
		if g.n < max(least, 1) {
			continue
		}
		t.key(i, key)
		bucket, ids := int64(0), key
		if t.g.bucket != 0 {
			bucket, ids = t.bins[key[0]], key[1:]
		}
		values := make([]string, len(ids))
		for k, id := range ids {
			values[k] = t.fields[k].list[id]
		}
		fn(bucket, values, g)
	}
}

// merge adds another tally of the same grouping.
func (t *tally) merge(o *tally) error {
	if len(t.groups) == 0 {
		*t = *o
		return nil
	}
	moved := make([][]uint32, len(o.fields))
	for i := range o.fields {
		moved[i] = make([]uint32, len(o.fields[i].list))
		for k, text := range o.fields[i].list {
			moved[i][k] = t.value(i, text)
		}
	}
	key := make([]uint32, t.depth())
	for i, g := range o.groups {
		if g.n == 0 {
			continue
		}
		o.key(i, key)
		ids := key
		if t.g.bucket != 0 {
			key[0] = t.bucket(o.bins[key[0]])
			ids = key[1:]
		}
		for k := range ids {
			ids[k] = moved[k][ids[k]]
		}
		if err := t.add(key, g.n, g.first, g.last); err != nil {
			return err
		}
	}
	return nil
}

// row counts one record.
func (t *tally) row(r *row) error {
	var key [MaxBy + 1]uint32
	n := 0
	if t.g.bucket != 0 {
		key[n] = t.bucket(floorDiv(r.id.Time, t.g.bucket))
		n++
	}
	for i, name := range t.g.by {
		v, ok := r.rec.Get(name)
		if !ok && t.g.present {
			return nil
		}
		key[n] = t.value(i, v)
		n++
	}
	return t.add(key[:n], 1, r.id.Time, r.id.Time)
}

// part counts rows of a block.
func (t *tally) part(p *part, set bitset) error {
	odd, err := t.odd(p, set)
	if err != nil {
		return err
	}
	if odd != nil {
		if err := p.records(members(odd, false), func(_ int, r row) error { return t.row(&r) }); err != nil {
			return err
		}
	}
	return t.rows(p, set)
}

// odd takes the rows out of set whose records must be looked at, and gives
// them.
func (t *tally) odd(p *part, set bitset) (odd bitset, err error) {
	for _, name := range t.g.by {
		v, err := p.view(name)
		if err != nil {
			return nil, err
		}
		if v.odd != nil {
			if odd == nil {
				odd = newBitset(p.n)
			}
			odd.or(v.odd)
		}
	}
	if odd == nil {
		return nil, nil
	}
	odd.and(set)
	set.andNot(odd)
	return odd, nil
}

// rows counts rows of a part, which are in the order of time.
func (t *tally) rows(p *part, set bitset) error {
	times, err := p.column(colTime)
	if err != nil {
		return err
	}
	l := &local{t: t}
	for i, name := range t.g.by {
		v, err := p.view(name)
		if err != nil {
			return err
		}
		l.add(i, v)
	}
	if set.count() > p.n/4 {
		for i := range l.fields {
			c := &l.fields[i]
			if c.all = c.fill(p.n, t.codes[i]); c.all != nil {
				t.codes[i] = c.all
			}
		}
	}
	if t.g.bucket == 0 {
		return l.count(times, set, 0, p.n, nil)
	}
	for i := set.next(0); i >= 0; {
		bucket := floorDiv(times.int(i), t.g.bucket)
		end := max(times.search((bucket+1)*t.g.bucket), i+1)
		if err := l.count(times, set, i, end, []uint32{t.bucket(bucket)}); err != nil {
			return err
		}
		if end >= p.n {
			break
		}
		i = set.next(end)
	}
	return nil
}
