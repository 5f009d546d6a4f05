package logstore

// local counts the rows of one part by codes, which are small numbers, and then
// adds each group to the tally once.
type local struct {
	t      *tally
	fields []coded
	size   int // combinations of codes; 0: too many for a table
	table  []uint32
	found  []seen
}

// maxTable bounds the table of combinations.
const maxTable = 1 << 18

// coded is a field of the part by code. The last code is that of no value.
type coded struct {
	v    *view
	n    int
	near bool     // whole numbers near one another: codes are differences to their base
	ids  []uint32 // of codes in the tally; noID: not asked yet
	all  []uint32 // the code of each row, when most rows are counted
}

// seen is a combination of codes.
type seen struct {
	at          int
	n           int64
	first, last int // rows
}

func (l *local) add(field int, v *view) {
	c := coded{v: v, n: v.codes() + 1}
	if v.col != nil && v.col.form == formInts && v.col.width <= 2 {
		c.near = true
		top := uint64(0)
		for i := range v.col.n {
			top = max(top, fixed(v.col.body, i, v.col.width))
		}
		c.n = int(top) + 2
	}
	c.ids = make([]uint32, c.n)
	for i := range c.ids {
		c.ids[i] = noID
	}
	if field == 0 {
		l.size = 1
	}
	if l.size *= c.n; l.size > maxTable {
		l.size = 0
	}
	l.fields = append(l.fields, c)
}

// fill finds the codes of all rows, which is quicker than one by one.
func (c *coded) fill(n int, buf []uint32) []uint32 {
	v := c.v
	if v.col == nil || v.at != nil {
		return nil
	}
	if cap(buf) < n {
		buf = make([]uint32, n)
	}
	buf = buf[:n]
	switch {
	case c.near:
		for i := range buf {
			buf[i] = uint32(fixed(v.col.body, i, v.col.width))
		}
	case v.col.form == formDict8 && v.col.codes != "":
		for i := range buf {
			buf[i] = uint32(v.col.codes[i])
		}
	case v.col.form == formDict16 && v.col.codes != "":
		for i := range buf {
			buf[i] = uint32(v.col.codes[2*i]) | uint32(v.col.codes[2*i+1])<<8
		}
	default:
		return nil
	}
	if !c.near {
		last := uint32(v.col.texts.n - 1)
		for i, code := range buf {
			if code = min(code, last); v.slot && int(code) == v.none {
				code = uint32(c.n - 1)
			}
			buf[i] = code
		}
	}
	return buf
}

// code is the row's code.
func (c *coded) code(row int) int {
	if c.all != nil {
		return int(c.all[row])
	}
	code, ok := c.v.code(row)
	switch {
	case !ok:
		return c.n - 1
	case c.near:
		return int(fixed(c.v.col.body, code, c.v.col.width))
	}
	return code
}

// text is the value of a code.
func (c *coded) text(code int) string {
	if code == c.n-1 {
		return ""
	}
	return c.v.val(code)
}

// id is the number of a code's value in the tally.
func (l *local) id(field, code int) uint32 {
	c := &l.fields[field]
	if c.ids[code] == noID {
		if c.near && code < c.n-1 {
			c.ids[code] = l.t.number(field, c.v.col.base+int64(code))
		} else {
			c.ids[code] = l.t.value(field, c.text(code))
		}
	}
	return c.ids[code]
}

// count counts the rows [from, to) of set in groups that begin with prefix.
func (l *local) count(times *column, set bitset, from, to int, prefix []uint32) error {
	var path [MaxBy + 1]uint32
	key := append(path[:0], prefix...)
	if len(l.fields) == 0 {
		n := int64(0)
		for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
			n++
		}
		return l.t.add(key, n, times.int(from), times.int(to-1))
	}
	if l.size == 0 {
		return l.each(times, set, from, to, key)
	}
	if l.table == nil {
		if len(l.t.spare) < l.size {
			l.t.spare = make([]uint32, l.size)
		}
		l.table = l.t.spare
	}
	l.found = append(l.t.found[:0], seen{}) // so that 0 is none
	defer func() { l.t.found = l.found }()
	for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
		at := 0
		for k := range l.fields {
			c := &l.fields[k]
			at = at*c.n + c.code(i)
		}
		s := l.table[at]
		if s == 0 {
			s = uint32(len(l.found))
			l.table[at] = s
			l.found = append(l.found, seen{at: at, first: i})
		}
		f := &l.found[s]
		f.n++
		f.last = i
	}
	depth := len(key)
	key = path[:depth+len(l.fields)]
	for _, f := range l.found[1:] {
		l.table[f.at] = 0
		none := false
		for k, at := len(l.fields)-1, f.at; k >= 0; k-- {
			n := l.fields[k].n
			if none = l.t.g.present && at%n == n-1; none {
				break
			}
			key[depth+k] = l.id(k, at%n)
			at /= n
		}
		if none {
			continue
		}
		if err := l.t.add(key, f.n, times.int(f.first), times.int(f.last)); err != nil {
			return err
		}
	}
	return nil
}

// each is count without a table.
func (l *local) each(times *column, set bitset, from, to int, key []uint32) error {
	depth := len(key)
	key = key[:depth+len(l.fields)]
rows:
	for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
		for k := range l.fields {
			c := &l.fields[k]
			code := c.code(i)
			if code == c.n-1 && l.t.g.present {
				continue rows
			}
			key[depth+k] = l.id(k, code)
		}
		at := times.int(i)
		if err := l.t.add(key, 1, at, at); err != nil {
			return err
		}
	}
	return nil
}
