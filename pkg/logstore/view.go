package logstore

import (
	"slices"

	"vpnd/pkg/logline"
)

// view is one name's value in every row of a part.
type view struct {
	col  *column // nil: no row has it
	at   []int32 // row to position in col, -1 for none; nil: the row itself
	slot bool    // an empty text is none
	none int     // its code in a dictionary, -1: there is no such
	odd  bitset  // rows whose value is not so simple: look at the record
}

// code gives the code of the row's value, and whether it has one.
func (v *view) code(row int) (int, bool) {
	if v.col == nil {
		return 0, false
	}
	at := row
	if v.at != nil {
		if v.at[row] < 0 {
			return 0, false
		}
		at = int(v.at[row])
	}
	if v.slot && !v.col.dictionary() {
		return at, v.col.form == formInts || v.col.texts.at(at) != ""
	}
	code := v.col.code(at)
	return code, code != v.none
}

func (v *view) codes() int {
	if v.col == nil {
		return 0
	}
	return v.col.count()
}

func (v *view) val(code int) string { return v.col.val(code) }

// view prepares a name for all rows.
func (p *part) view(name string) (*view, error) {
	v := &view{none: -1}
	slot := slotIndex(name)
	var err error
	switch {
	case slot >= 0:
		v.slot = true
		if v.col, err = p.slot(slot); err != nil {
			return nil, err
		}
		if v.col.dictionary() {
			v.none = v.col.texts.empty()
		}
	case name == "level":
		return p.levels()
	}
	shapes, all, err := p.shape()
	if err != nil {
		return nil, err
	}
	counts, most := countKey(all, name)
	switch {
	case most == 0:
		return v, nil
	case slot >= 0:
		v.odd = oddRows(shapes, counts, 1)
		return v, nil
	}
	if most > 1 {
		v.odd = oddRows(shapes, counts, 2)
	}
	col, c, err := p.streamOf(name)
	if err != nil {
		return nil, err
	}
	v.col = c
	if col != colRest {
		v.at, err = positions(shapes, counts, c.n)
		return v, err
	}
	v.at, err = p.restPositions(shapes, all, name, c.n)
	return v, err
}

// levels is a view of levels as texts.
func (p *part) levels() (*view, error) {
	c, err := p.column(colLevel)
	if err != nil {
		return nil, err
	}
	codes := make([]byte, c.n)
	for i := range codes {
		l := c.int(i)
		if l < 0 || l > int64(logline.Fatal) {
			return nil, errDamaged
		}
		codes[i] = byte(l)
	}
	v := &view{col: &column{n: c.n, form: formDict8, texts: levelColumn, codes: string(codes)}, slot: true}
	shapes, all, err := p.shape()
	if err != nil {
		return nil, err
	}
	if counts, most := countKey(all, "level"); most > 0 {
		v.odd = oddRows(shapes, counts, 1)
	}
	return v, nil
}

var levelTexts = func() (out [logline.Fatal + 1]string) {
	for l := range out {
		out[l] = logline.Level(l).String()
	}
	return out
}()

var levelColumn = func() texts {
	r := reader{b: string(appendTexts(nil, levelTexts[:]))}
	return r.texts(len(levelTexts))
}()

// countKey tells how often each shape has the key.
func countKey(shapes []shape, key string) (counts []int32, most int32) {
	for i, s := range shapes {
		for k := range s {
			if s[k].key == key {
				if counts == nil {
					counts = make([]int32, len(shapes))
				}
				counts[i]++
				most = max(most, counts[i])
			}
		}
	}
	return counts, most
}

func oddRows(shapes *column, counts []int32, least int32) bitset {
	out := newBitset(shapes.n)
	for i := range shapes.n {
		if counts[shapes.code(i)] >= least {
			out.set(i)
		}
	}
	return out
}

// positions tells where in its stream each row has the value of a field. nil:
// each row has one.
func positions(shapes *column, counts []int32, n int) ([]int32, error) {
	if n == shapes.n && !slices.ContainsFunc(counts, func(k int32) bool { return k != 1 }) {
		return nil, nil
	}
	at := make([]int32, shapes.n)
	next := int32(0)
	for i := range at {
		k := counts[shapes.code(i)]
		at[i] = next
		if k == 0 {
			at[i] = -1
		}
		next += k
	}
	if int(next) != n {
		return nil, errDamaged
	}
	return at, nil
}

// restPositions finds the values of a key among those of all rare fields.
func (p *part) restPositions(shapes *column, all []shape, name string, n int) ([]int32, error) {
	inRest := map[string]bool{}
	at := make([]int32, shapes.n)
	next := int32(0)
	for i := range at {
		at[i] = -1
		for _, f := range all[shapes.code(i)] {
			rest, ok := inRest[f.key]
			if !ok {
				col, _, err := p.streamOf(f.key)
				if err != nil {
					return nil, err
				}
				rest = col == colRest
				inRest[f.key] = rest
			}
			if !rest {
				continue
			}
			if f.key == name && at[i] < 0 {
				at[i] = next
			}
			next++
		}
	}
	if int(next) != n {
		return nil, errDamaged
	}
	return at, nil
}
