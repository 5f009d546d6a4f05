package logstore

import (
	"database/sql/driver"

	"vpnd/pkg/logline"
)

const segmentQuery = "SELECT no, rows, tmin, tmax, levels, blocks FROM segment"

func readSegment(r []driver.Value) (*segment, error) {
	blob, ok := r[5].([]byte)
	s := &segment{no: integer(r[0]), n: int(integer(r[1])), tmin: integer(r[2]), tmax: integer(r[3]), levels: int(integer(r[4]))}
	if !ok || s.n <= 0 || s.n > 1<<20 {
		return nil, errDamaged
	}
	var err error
	s.blocks, err = decodeBlocks(blob, s.n)
	return s, err
}

// block reads one block of a segment, column by column as they are needed.
type block struct {
	c      *conn
	keys   map[string]int
	seg    *segment
	no     int
	meta   blockMeta
	cols   map[int]*column // nil for a column that the block does not have
	shapes []shape         // by code of the shape column
}

func openBlock(c *conn, keys map[string]int, seg *segment, no int) *block {
	return &block{c: c, keys: keys, seg: seg, no: no, meta: seg.blocks[no], cols: map[int]*column{}}
}

// column reads a column that the block may not have.
func (b *block) column(col int) (*column, error) {
	if c, ok := b.cols[col]; ok {
		return c, nil
	}
	data, err := b.c.blob("SELECT data FROM col WHERE id=?", columnID(b.seg.no, col, b.no))
	if err != nil {
		return nil, err
	}
	return b.decode(col, data)
}

// whole reads all columns at once.
func (b *block) whole() error {
	first := columnID(b.seg.no, 0, b.no)
	return b.c.each("SELECT id, data FROM col WHERE id>=? AND id<?", func(r []driver.Value) error {
		col := int(integer(r[0]) - first)
		data, ok := r[1].([]byte)
		if !ok {
			return errDamaged
		}
		if _, ok := b.cols[col]; ok {
			return nil
		}
		_, err := b.decode(col, data)
		return err
	}, first, first+1<<16)
}

func (b *block) decode(col int, data []byte) (c *column, err error) {
	if data != nil {
		if c, err = decodeColumn(data); err != nil {
			return nil, err
		}
	}
	if col < colShape && (c == nil || c.form != formInts) || col <= colShape && c == nil || col != colRest && col < colKey && c != nil && c.n != b.meta.n {
		return nil, errDamaged
	}
	b.cols[col] = c
	return c, nil
}

// slot reads a column that every block has.
func (b *block) slot(slot int) (*column, error) {
	c, err := b.column(colSlot + slot)
	if err == nil && c == nil {
		err = errDamaged
	}
	return c, err
}

// shape reads the shapes of the block's rows.
func (b *block) shape() (*column, []shape, error) {
	c, err := b.column(colShape)
	if err != nil || b.shapes != nil {
		return c, b.shapes, err
	}
	shapes := make([]shape, c.codes())
	for i := range shapes {
		if shapes[i], err = parseShape(c.val(i)); err != nil {
			return nil, nil, err
		}
	}
	b.shapes = shapes
	return c, shapes, nil
}

// streamOf is the column that a field's values are in.
func (b *block) streamOf(key string) (int, *column, error) {
	if col, ok := b.keys[key]; ok {
		c, err := b.column(col)
		if err != nil || c != nil {
			return col, c, err
		}
	}
	c, err := b.column(colRest)
	if err == nil && c == nil {
		err = errDamaged
	}
	return colRest, c, err
}

// view is one name's value in every row of a block.
type view struct {
	col  *column // nil: no row has it
	at   []int32 // row to position in col, -1 for none; nil: the row itself
	slot bool    // an empty text is none
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
	code := v.col.code(at)
	if v.slot && v.col.form != formInts && v.col.val(code) == "" {
		return 0, false
	}
	return code, true
}

func (v *view) codes() int {
	if v.col == nil {
		return 0
	}
	return v.col.codes()
}

func (v *view) val(code int) string { return v.col.val(code) }

// view prepares a name for all rows.
func (b *block) view(name string) (*view, error) {
	v := &view{}
	slot := slotIndex(name)
	var err error
	switch {
	case slot >= 0:
		v.slot = true
		if v.col, err = b.slot(slot); err != nil {
			return nil, err
		}
	case name == "level":
		return b.levels()
	}
	shapes, all, err := b.shape()
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
	col, c, err := b.streamOf(name)
	if err != nil {
		return nil, err
	}
	v.col = c
	if col != colRest {
		v.at, err = positions(shapes, counts, c.n)
		return v, err
	}
	v.at, err = b.restPositions(shapes, all, name, c.n)
	return v, err
}

// levels is a view of levels as texts.
func (b *block) levels() (*view, error) {
	c, err := b.column(colLevel)
	if err != nil {
		return nil, err
	}
	v := &view{col: &column{n: c.n, form: formDict8, vals: levelTexts[:]}, slot: true}
	codes := make([]byte, c.n)
	for i := range codes {
		l := c.int(i)
		if l < 0 || l > int64(logline.Fatal) {
			return nil, errDamaged
		}
		codes[i] = byte(l)
	}
	v.col.body = string(codes)
	shapes, all, err := b.shape()
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

func positions(shapes *column, counts []int32, n int) ([]int32, error) {
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
func (b *block) restPositions(shapes *column, all []shape, name string, n int) ([]int32, error) {
	inRest := map[string]bool{}
	at := make([]int32, shapes.n)
	next := int32(0)
	for i := range at {
		at[i] = -1
		for _, f := range all[shapes.code(i)] {
			rest, ok := inRest[f.key]
			if !ok {
				col, _, err := b.streamOf(f.key)
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

// records makes the records of rising rows of the block.
func (b *block) records(rows []int, fn func(row int, r row) error) error {
	if err := b.whole(); err != nil {
		return err
	}
	var fixed [4]*column
	var err error
	for i, col := range [...]int{colTime, colSeq, colLevel, colCut} {
		if fixed[i], err = b.column(col); err != nil {
			return err
		}
	}
	var slots [len(slotNames)]*column
	for i := range slots {
		if slots[i], err = b.slot(i); err != nil {
			return err
		}
	}
	w, err := b.walk()
	if err != nil {
		return err
	}
	for _, i := range rows {
		r := row{id: ID{fixed[0].int(i), fixed[1].int(i) + int64(i)}}
		r.rec.Time = microTime(r.id.Time)
		r.rec.Level, r.rec.Cut = logline.Level(fixed[2].int(i)), fixed[3].int(i) != 0
		for s, c := range slots {
			*slotOf(&r.rec, s) = c.at(i)
		}
		if r.rec.Fields, err = w.fields(i); err != nil {
			return err
		}
		if err := fn(i, r); err != nil {
			return err
		}
	}
	return nil
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

func (b *block) walk() (*walker, error) {
	shapes, all, err := b.shape()
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
				col, c, err := b.streamOf(s[k].key)
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

// segmentRows reads a whole segment.
func (s *Store) segmentRows(c *conn, seg *segment) ([]row, error) {
	keys, err := readKeys(c)
	if err != nil {
		return nil, err
	}
	out := make([]row, 0, seg.n)
	for i := range seg.blocks {
		b := openBlock(c, keys, seg, i)
		all := make([]int, b.meta.n)
		for k := range all {
			all[k] = k
		}
		if err := b.records(all, func(_ int, r row) error { out = append(out, r); return nil }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readKeys(c *conn) (map[string]int, error) {
	keys := map[string]int{}
	err := c.each("SELECT col, name FROM key", func(r []driver.Value) error {
		name, ok := r[1].(string)
		if !ok {
			return errDamaged
		}
		keys[name] = int(integer(r[0]))
		return nil
	})
	return keys, err
}
