package logstore

import (
	"encoding/binary"
	"slices"

	"vpnd/pkg/logline"
)

// narrow is how many bytes a value of a column takes at most, on average, to be
// kept for the whole chunk beside the blocks: such fields are counted by.
const narrow = 12

type colBlob struct {
	col  int
	data []byte
}

// built is a chunk ready to be written, with its lexicon.
type built struct {
	chunk
	cols   []colBlob
	rows   [][]byte // the blocks
	leaves []leaf
	rollup []byte
	zone   string
	keys   map[string]int // those that got a column
}

func compareRows(a, b row) int {
	switch {
	case a.id.less(b.id):
		return -1
	case b.id.less(a.id):
		return 1
	}
	return 0
}

// buildChunk sorts rows and makes a chunk of them. keys are the day's field
// columns; new fields get numbers of their own while there are any left.
func buildChunk(rows []row, keys map[string]int) *built {
	slices.SortFunc(rows, compareRows)
	s := &built{keys: map[string]int{}}
	s.n = len(rows)
	s.tmin, s.tmax = rows[0].id.Time, rows[len(rows)-1].id.Time
	size, even := blockBytes, true
	for i := range rows {
		s.levels |= 1 << rows[i].rec.Level
		one := rowSize(&rows[i].rec) - 320
		if k := len(s.blocks); k == 0 || i-s.blocks[k-1] >= blockRows || size+one > blockBytes {
			s.blocks = append(s.blocks, i)
			size = 0
			even = even && i == k*blockRows
		}
		size += one
	}
	if even {
		s.blocks = nil
	}
	w := &chunkWriter{built: s, known: keys, all: rows, lex: newLexiconWriter(len(rows)), zones: newZoneWriter()}
	w.chooseKeys()
	w.bodies = make([][]byte, s.countBlocks())
	for i := range w.bodies {
		from, to := s.span(i)
		w.bodies[i] = newFrame((to - from) * 160)
	}
	w.numbers(colTime, func(i int) int64 { return rows[i].id.Time })
	w.numbers(colSeq, func(i int) int64 { return rows[i].id.Seq })
	w.numbers(colLevel, func(i int) int64 { return int64(rows[i].rec.Level) })
	w.numbers(colCut, func(i int) int64 {
		if rows[i].rec.Cut {
			return 1
		}
		return 0
	})
	w.levels()
	w.slots()
	w.fields()
	for _, b := range w.bodies {
		s.rows = append(s.rows, sealFrame(b))
	}
	slices.SortFunc(s.cols, func(a, b colBlob) int { return a.col - b.col })
	slices.Sort(s.wide)
	s.zone = w.zones.encode()
	s.leaves = w.lex.leaves(s.n)
	s.rollup = encodeRollup(rows)
	return s
}

type chunkWriter struct {
	*built
	known  map[string]int
	all    []row
	lex    *lexiconWriter
	zones  *zoneWriter
	enc    columnWriter
	bodies [][]byte // of the blocks: column, length, content, and so on
	piece  []byte
}

// chooseKeys gives columns to the fields that several rows of the chunk have.
func (w *chunkWriter) chooseKeys() {
	count := map[string]int{}
	var order []string
	for i := range w.all {
		fields := w.all[i].rec.Fields
		for k := range fields {
			key := fields[k].Key
			n := count[key]
			if n == 0 {
				if len(count) >= 4*maxKeys {
					continue // somebody invents names: these stay in the rest
				}
				order = append(order, key)
			}
			count[key] = n + 1
		}
	}
	next := colKey
	for _, c := range w.known {
		next = max(next, c+1)
	}
	for _, key := range order {
		if c, ok := w.known[key]; ok {
			w.keys[key] = c
		} else if count[key]*64 >= len(w.all) && next < colKey+maxKeys && len(key) <= 256 {
			w.keys[key] = next
			next++
		}
	}
}

// numbers writes a column of numbers, all from f.
func (w *chunkWriter) numbers(col int, f func(i int) int64) {
	ints := make([]int64, w.n)
	for i := range ints {
		ints[i] = f(i)
	}
	w.enc.ints, w.enc.form = ints, formInts
	w.write(col, nil)
}

// write puts the column that enc has looked at into the blocks, and unless it
// is wide beside them. at are the rows of its values when there is not one for
// each row.
func (w *chunkWriter) write(col int, at []int) {
	n := w.n
	if at != nil {
		n = len(at)
	}
	if col < colSlot || w.enc.size() <= narrow*n {
		w.cols = append(w.cols, colBlob{col, sealFrame(w.enc.whole(newFrame(w.enc.size() + 32)))})
	} else {
		w.wide = append(w.wide, col)
	}
	next := 0
	for i := range w.bodies {
		from, to := w.span(i)
		if at != nil {
			from = next
			for next < n && at[next] < to {
				next++
			}
			if to = next; from == to {
				continue
			}
		}
		w.piece = w.enc.block(w.piece[:0], from, to)
		b := binary.AppendUvarint(w.bodies[i], uint64(col))
		b = binary.AppendUvarint(b, uint64(len(w.piece)))
		w.bodies[i] = append(b, w.piece...)
	}
}

func (w *chunkWriter) levels() {
	var ids [logline.Fatal + 1]uint32
	for l := range ids {
		ids[l] = noID
	}
	for i := range w.all {
		l := w.all[i].rec.Level
		if ids[l] == noID {
			ids[l] = w.lex.id(marked(levelMark, levelTexts[l]))
		}
		w.lex.pair(ids[l], i)
		if l != logline.Unknown {
			w.zones.level++
		}
	}
}

func (w *chunkWriter) slots() {
	values, rows := make([]string, w.n), make([]int, w.n)
	for i := range rows {
		rows[i] = i
	}
	for slot, name := range slotNames {
		has := 0
		for i := range w.all {
			values[i] = *slotOf(&w.all[i].rec, slot)
			if values[i] != "" {
				has++
			}
		}
		w.enc.look(values)
		w.write(colSlot+slot, nil)
		w.zones.column(name, &w.enc, has, true)
		switch slot {
		case slotService:
			w.lex.mark(serviceMark, values, rows)
		case slotFile:
			w.lex.mark(fileMark, values, rows)
		default:
			w.lex.column(values, rows, w.enc.dict, w.enc.codes)
		}
	}
}

// fields writes each row's shape (the names and kinds of its fields, in order),
// then the values of each field in a column, and those of rare fields in one.
func (w *chunkWriter) fields() {
	type stream struct {
		name   string
		values []string
		rows   []int
		has    int
	}
	streams := map[int]*stream{}
	byKey := map[string]*stream{}
	var order []int
	shapes := make([]string, w.n)
	known := map[string]string{}
	var buf []byte
	for i := range w.all {
		fields := w.all[i].rec.Fields
		buf = buf[:0]
		for k := range fields {
			f := &fields[k]
			buf = append(buf, byte(f.Kind))
			buf = appendString(buf, f.Key)
			s := byKey[f.Key]
			if s == nil {
				col, ok := w.keys[f.Key]
				if !ok {
					col = colRest
				}
				if s = streams[col]; s == nil {
					s = &stream{name: f.Key}
					streams[col] = s
					order = append(order, col)
				}
				if len(byKey) < 4*maxKeys {
					byKey[f.Key] = s
				}
			}
			if s == streams[colRest] {
				w.zones.value(f.Key, f.Value, i)
			}
			if n := len(s.rows); n == 0 || s.rows[n-1] != i {
				s.has++
			}
			s.values = append(s.values, f.Value)
			s.rows = append(s.rows, i)
			switch f.Key { // a second service or file of a row is looked up like the first
			case "service":
				w.lex.add(marked(serviceMark, f.Value), i)
			case "file":
				w.lex.add(marked(fileMark, f.Value), i)
			}
		}
		shape, ok := known[string(buf)]
		if !ok {
			shape = string(buf)
			known[shape] = shape
		}
		shapes[i] = shape
	}
	w.enc.look(shapes)
	w.write(colShape, nil)
	for _, col := range order {
		s := streams[col]
		w.enc.look(s.values)
		w.write(col, s.rows)
		if col != colRest {
			w.zones.column(s.name, &w.enc, s.has, false)
		}
		w.lex.column(s.values, s.rows, w.enc.dict, w.enc.codes)
	}
}

// shape is what the shape column says about a row.
type shape []shapeField

type shapeField struct {
	key  string
	kind logline.Kind
}

func parseShape(s string) (shape, error) {
	r := reader{b: s}
	var out shape
	for r.left() > 0 && !r.bad {
		kind := logline.Kind(r.byte())
		out = append(out, shapeField{r.string(), kind})
	}
	if r.bad {
		return nil, errDamaged
	}
	return out, nil
}
