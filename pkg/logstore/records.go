package logstore

import (
	"strings"

	"vpnd/pkg/logline"
)

// records makes the records of rising rows of a block. They keep nothing of the
// block in memory.
func (p *part) records(rows []int, fn func(row int, r row) error) error {
	var fixed [4]*column
	var err error
	for i, col := range [...]int{colTime, colSeq, colLevel, colCut} {
		if fixed[i], err = p.column(col); err != nil {
			return err
		}
	}
	var slots [len(slotNames)]*column
	for i := range slots {
		if slots[i], err = p.slot(i); err != nil {
			return err
		}
	}
	w, err := p.walk()
	if err != nil {
		return err
	}
	for _, i := range rows {
		r := row{id: ID{fixed[0].int(i), fixed[1].int(i)}}
		r.rec.Time = microTime(r.id.Time)
		r.rec.Level, r.rec.Cut = logline.Level(fixed[2].int(i)), fixed[3].int(i) != 0
		for s, c := range slots {
			*slotOf(&r.rec, s) = c.at(i)
		}
		if r.rec.Fields, err = w.fields(i); err != nil {
			return err
		}
		own(&r.rec)
		if err := fn(i, r); err != nil {
			return err
		}
	}
	return nil
}

// own copies a record's values, which are pieces of a blob, to one string.
// Keys stay: they are those of the few shapes.
func own(r *logline.Record) {
	size := 0
	for s := range slotNames {
		size += len(*slotOf(r, s))
	}
	for i := range r.Fields {
		size += len(r.Fields[i].Value)
	}
	var b strings.Builder
	b.Grow(size)
	for s := range slotNames {
		b.WriteString(*slotOf(r, s))
	}
	for i := range r.Fields {
		b.WriteString(r.Fields[i].Value)
	}
	all := b.String()
	take := func(p *string) { *p, all = all[:len(*p)], all[len(*p):] }
	for s := range slotNames {
		take(slotOf(r, s))
	}
	for i := range r.Fields {
		take(&r.Fields[i].Value)
	}
}

// walker finds the fields of rising rows: how many values of each stream come
// before a row follows from the shapes of the rows before.
type walker struct {
	shapes  *column
	all     []shape
	streams []*column
	of      [][]int // shape, field to index of streams
	passed  []int   // rows of each shape before next
	next    int
}

func (p *part) walk() (*walker, error) {
	shapes, all, err := p.shape()
	if err != nil {
		return nil, err
	}
	w := &walker{shapes: shapes, all: all, of: make([][]int, len(all)), passed: make([]int, len(all))}
	byKey, byCol := map[string]int{}, map[int]int{}
	for i, s := range all {
		w.of[i] = make([]int, len(s))
		for k := range s {
			n, ok := byKey[s[k].key]
			if !ok {
				col, c, err := p.streamOf(s[k].key)
				if err != nil {
					return nil, err
				}
				if n, ok = byCol[col]; !ok {
					n = len(w.streams)
					byCol[col] = n
					w.streams = append(w.streams, c)
				}
				byKey[s[k].key] = n
			}
			w.of[i][k] = n
		}
	}
	return w, nil
}

func (w *walker) fields(row int) ([]logline.Field, error) {
	for ; w.next < row; w.next++ {
		w.passed[w.shapes.code(w.next)]++
	}
	code := w.shapes.code(row)
	s := w.all[code]
	if len(s) == 0 {
		return nil, nil
	}
	at := make([]int, len(w.streams))
	for i, n := range w.passed {
		if n > 0 {
			for _, stream := range w.of[i] {
				at[stream] += n
			}
		}
	}
	out := make([]logline.Field, len(s))
	for k, f := range s {
		stream := w.of[code][k]
		if at[stream] >= w.streams[stream].n {
			return nil, errDamaged
		}
		out[k] = logline.Field{Key: f.key, Value: w.streams[stream].at(at[stream]), Kind: f.kind}
		at[stream]++
	}
	return out, nil
}

// all reads the rows of a chunk.
func (rd *reading) all(ch *chunk) ([]row, error) {
	out := make([]row, 0, ch.n)
	for i := range ch.countBlocks() {
		b, _, err := rd.block(ch, i)
		if err != nil {
			return nil, err
		}
		rows := make([]int, b.n)
		for k := range rows {
			rows[k] = k
		}
		if err := b.records(rows, func(_ int, r row) error { out = append(out, r); return nil }); err != nil {
			return nil, err
		}
	}
	return out, nil
}
