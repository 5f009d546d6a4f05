package logstore

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"vpnd/pkg/logquery"
)

// A chunk's zones tell for each name how many rows have it and between which
// bounds its values are, so that chunks without an answer are passed over.

const (
	zoneText    = 16 // bytes of a bound
	zoneTop     = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
	maxRest     = 256 // names without a column that have a zone, those of slots apart
	zoneTexts   = 1   // low and high are known
	zoneNumbers = 2   // some values are numbers, from least to most
	zoneInts    = 4   // all values are usual whole numbers
	zoneLoose   = 8   // rows is only an upper bound
)

type zone struct {
	rows        int
	flags       byte
	low, high   string // of the values' first zoneText bytes
	least, most float64
}

type zoneWriter struct {
	names map[string]*zone
	seen  map[string]int // last row, of names without a column
	level int            // rows that have one
	more  bool           // there are names without a zone
}

func newZoneWriter() *zoneWriter {
	return &zoneWriter{names: map[string]*zone{}, seen: map[string]int{}}
}

func (z *zone) text(v string) {
	v = v[:min(len(v), zoneText)]
	if z.flags&zoneTexts == 0 {
		z.low, z.high = v, v
		z.flags |= zoneTexts
		return
	}
	z.low, z.high = min(z.low, v), max(z.high, v)
}

func (z *zone) number(f float64) {
	if z.flags&zoneNumbers == 0 {
		z.least, z.most = f, f
		z.flags |= zoneNumbers
		return
	}
	z.least, z.most = min(z.least, f), max(z.most, f)
}

func (z *zone) value(v string) {
	z.text(v)
	if f, ok := logquery.ParseNumber(v); ok {
		z.number(f)
	}
}

// column takes a column whose values belong to has rows. Of a slot, the empty
// text is none.
func (w *zoneWriter) column(name string, enc *columnWriter, has int, slot bool) {
	if has == 0 {
		return
	}
	z := w.names[name]
	if z == nil {
		z = &zone{}
		w.names[name] = z
		if enc.form == formInts {
			z.flags = zoneInts
		}
	} else {
		z.flags |= zoneLoose // a known name once more
		if z.flags&zoneInts != 0 {
			z.flags &^= zoneInts
			z.low, z.high = "", zoneTop
			z.flags |= zoneTexts
		}
	}
	z.rows += has
	if z.flags&zoneInts != 0 {
		for _, n := range enc.ints {
			z.number(float64(n))
		}
		return
	}
	values := enc.values
	if enc.form == formDict8 || enc.form == formDict16 {
		values = enc.dict
	}
	for _, v := range values {
		if v != "" || !slot {
			z.value(v)
		}
	}
}

// value takes one value of a name without a column.
func (w *zoneWriter) value(name, v string, row int) {
	z := w.names[name]
	if z == nil {
		if slotIndex(name) < 0 && (len(w.seen) >= maxRest || len(name) > 256) {
			w.more = true
			return
		}
		z = &zone{}
		w.names[name] = z
	} else if _, mine := w.seen[name]; !mine {
		if z.flags&zoneInts != 0 {
			z.flags &^= zoneInts
			z.low, z.high = "", zoneTop
		}
		z.flags |= zoneLoose | zoneTexts
	}
	if last, ok := w.seen[name]; !ok || last != row {
		z.rows++
		w.seen[name] = row
	}
	z.value(v)
}

func (w *zoneWriter) encode() string {
	b := []byte{0}
	if w.more {
		b[0] = 1
	}
	b = binary.AppendUvarint(b, uint64(w.level))
	for _, name := range slices.Sorted(maps.Keys(w.names)) {
		z := w.names[name]
		b = appendString(b, name)
		b = append(b, z.flags)
		b = binary.AppendUvarint(b, uint64(z.rows))
		if z.flags&zoneTexts != 0 {
			b = appendString(b, z.low)
			b = appendString(b, z.high)
		}
		if z.flags&zoneNumbers != 0 {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(z.least))
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(z.most))
		}
	}
	return string(b)
}

// eachZone calls fn for every name until it says that this is enough.
func eachZone(data string, fn func(name string, z *zone) bool) (level int, more bool, err error) {
	r := reader{b: data}
	more = r.byte() != 0
	level = r.int()
	var z zone
	for r.left() > 0 && !r.bad {
		name := r.string()
		z = zone{flags: r.byte(), rows: r.int()}
		if z.flags&zoneTexts != 0 {
			z.low, z.high = r.string(), r.string()
		}
		if z.flags&zoneNumbers != 0 {
			z.least, z.most = math.Float64frombits(fixed64(r.take(8))), math.Float64frombits(fixed64(r.take(8)))
		}
		if !r.bad && !fn(name, &z) {
			return level, more, nil
		}
	}
	if r.bad {
		return 0, false, errDamaged
	}
	return level, more, nil
}

func fixed64(s string) uint64 {
	if len(s) < 8 {
		return 0
	}
	return fixed(s, 0, 8)
}

// excludes tells that no row of n can match the term: z is nil when no row has
// the field.
func (f *fieldTerm) excludes(z *zone, n int) bool {
	if z == nil || z.rows == 0 {
		return !f.absent
	}
	if f.term.Not {
		return z.rows == n && z.flags&zoneLoose == 0 && f.exists
	}
	if f.term.Op != logquery.Equal {
		want := f.term.Number[0]
		switch {
		case z.flags&zoneNumbers == 0:
			return true
		case f.term.Op == logquery.Less:
			return !(z.least < want)
		case f.term.Op == logquery.LessEqual:
			return !(z.least <= want)
		case f.term.Op == logquery.Greater:
			return !(z.most > want)
		}
		return !(z.most >= want)
	}
	for i, v := range f.term.Values {
		if z.mayHave(v, f.term.Prefix[i]) {
			return false
		}
	}
	return true
}

func (z *zone) mayHave(v string, prefix bool) bool {
	if z.flags&zoneInts != 0 {
		n, ok := usualInt(v)
		return prefix || ok && float64(n) >= z.least && float64(n) <= z.most
	}
	if z.flags&zoneTexts == 0 {
		return true
	}
	low := z.low
	if prefix {
		low = low[:min(len(low), len(v))]
	}
	v = v[:min(len(v), zoneText)]
	return v >= low && v <= z.high
}
