package logstore

import (
	"encoding/binary"
	"slices"
	"strings"

	"vpnd/pkg/logline"
)

// Bounds of a segment and its blocks. A block is what is read to show one row;
// a segment is what one lookup of a word costs.
const (
	segmentRows  = 8192
	segmentBytes = 8 << 20
	blockRows    = 1024
	blockBytes   = 512 << 10
)

// Columns of a block. Fields have the numbers of the day's table key.
const (
	colTime = iota + 1
	colSeq
	colLevel
	colCut
	colShape
	colRest // values of fields that have no column, one row after the other
)

const (
	colSlot = 8  // first of slotNames
	colKey  = 32 // first of the fields
	maxKeys = 240
)

// columnID puts the columns of a block beside each other: to show one row, all
// of them are read.
func columnID(segment int64, col, block int) int64 {
	return segment<<24 | int64(block)<<16 | int64(col)
}

// segment is what the table of segments says about one.
type segment struct {
	no         int64
	n          int // rows
	tmin, tmax int64
	levels     int // bit l: rows of level l
	blocks     []blockMeta
}

type blockMeta struct {
	start, n   int
	tmin, tmax int64
}

type colBlob struct {
	col, block int
	data       []byte
}

// built is a segment ready to be written.
type built struct {
	segment
	cols   []colBlob
	leaves []leaf
	rollup []byte
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

// buildSegment sorts rows and makes a segment of them. keys are the day's field
// columns; new fields get numbers of their own while there are any left.
func buildSegment(rows []row, keys map[string]int) *built {
	slices.SortFunc(rows, compareRows)
	s := &built{keys: map[string]int{}}
	s.n = len(rows)
	s.tmin, s.tmax = rows[0].id.Time, rows[len(rows)-1].id.Time
	for i := range rows {
		s.levels |= 1 << rows[i].rec.Level
	}
	w := &segmentWriter{built: s, known: keys, lex: newLexiconWriter()}
	w.chooseKeys(rows)
	for start := 0; start < len(rows); {
		n, size := 0, 0
		for start+n < len(rows) && n < blockRows && (n == 0 || size < blockBytes) {
			size += rowSize(&rows[start+n].rec) - 320
			n++
		}
		w.block(rows[start:start+n], start)
		start += n
	}
	s.leaves = w.lex.leaves(s.n)
	s.rollup = encodeRollup(rows)
	return s
}

type segmentWriter struct {
	*built
	known  map[string]int
	lex    *lexiconWriter
	enc    columnWriter
	values []string
	rows   []int
}

// chooseKeys gives columns to the fields that several rows of the segment have.
func (w *segmentWriter) chooseKeys(rows []row) {
	count := map[string]int{}
	var order []string
	for i := range rows {
		for k := range rows[i].rec.Fields {
			key := rows[i].rec.Fields[k].Key
			if count[key] == 0 {
				if len(count) >= 4*maxKeys {
					continue // somebody invents names: these stay in the rest
				}
				order = append(order, key)
			}
			count[key]++
		}
	}
	next := colKey
	for _, c := range w.known {
		next = max(next, c+1)
	}
	for _, key := range order {
		if c, ok := w.known[key]; ok {
			w.keys[key] = c
		} else if count[key]*64 >= len(rows) && next < colKey+maxKeys && len(key) <= 256 {
			w.keys[key] = next
			next++
		}
	}
}

func (w *segmentWriter) add(col, block int, data []byte) {
	w.cols = append(w.cols, colBlob{col, block, data})
}

func (w *segmentWriter) block(rows []row, start int) {
	b := len(w.blocks)
	w.blocks = append(w.blocks, blockMeta{start, len(rows), rows[0].id.Time, rows[len(rows)-1].id.Time})
	ints := make([]int64, len(rows))
	numbers := func(col int, f func(i int) int64) {
		for i := range rows {
			ints[i] = f(i)
		}
		w.add(col, b, encodeInts(ints))
	}
	numbers(colTime, func(i int) int64 { return rows[i].id.Time })
	numbers(colSeq, func(i int) int64 { return rows[i].id.Seq - int64(i) }) // one number when they arrived in order
	numbers(colLevel, func(i int) int64 { return int64(rows[i].rec.Level) })
	numbers(colCut, func(i int) int64 {
		if rows[i].rec.Cut {
			return 1
		}
		return 0
	})
	for i := range rows {
		w.lex.add(marked(levelMark, levelTexts[rows[i].rec.Level]), start+i)
	}
	for slot := range slotNames {
		w.values, w.rows = w.values[:0], w.rows[:0]
		for i := range rows {
			w.values = append(w.values, *slotOf(&rows[i].rec, slot))
			w.rows = append(w.rows, start+i)
		}
		w.column(colSlot+slot, b)
	}
	w.fields(rows, start, b)
}

// column encodes w.values, which belong to w.rows.
func (w *segmentWriter) column(col, block int) {
	w.add(col, block, w.enc.encode(w.values))
	switch col {
	case colSlot + slotService:
		w.lex.mark(serviceMark, w.values, w.rows)
	case colSlot + slotFile:
		w.lex.mark(fileMark, w.values, w.rows)
	default:
		w.lex.column(w.values, w.rows, w.enc.dict, w.enc.codes)
	}
}

// fields writes each row's shape (the names and kinds of its fields, in order),
// then the values of each field in a column, and those of rare fields in one.
func (w *segmentWriter) fields(rows []row, start, b int) {
	type stream struct {
		values []string
		rows   []int
	}
	streams := map[int]*stream{}
	var order []int
	shapes := make([]string, len(rows))
	known := map[string]string{}
	var buf []byte
	for i := range rows {
		buf = buf[:0]
		for k := range rows[i].rec.Fields {
			f := &rows[i].rec.Fields[k]
			buf = append(buf, byte(f.Kind))
			buf = appendString(buf, f.Key)
			col, ok := w.keys[f.Key]
			if !ok {
				col = colRest
			}
			s := streams[col]
			if s == nil {
				s = &stream{}
				streams[col] = s
				order = append(order, col)
			}
			s.values = append(s.values, f.Value)
			s.rows = append(s.rows, start+i)
			switch f.Key { // a second service or file of a row is looked up like the first
			case "service":
				w.lex.add(marked(serviceMark, f.Value), start+i)
			case "file":
				w.lex.add(marked(fileMark, f.Value), start+i)
			}
		}
		shape, ok := known[string(buf)]
		if !ok {
			shape = string(buf)
			known[shape] = shape
		}
		shapes[i] = shape
	}
	w.add(colShape, b, w.enc.encode(shapes))
	for _, col := range order {
		w.values, w.rows = append(w.values[:0], streams[col].values...), append(w.rows[:0], streams[col].rows...)
		w.column(col, b)
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

func encodeBlocks(blocks []blockMeta) []byte {
	b := newFrame(len(blocks) * 20)
	b = binary.AppendUvarint(b, uint64(len(blocks)))
	for _, m := range blocks {
		b = binary.AppendUvarint(b, uint64(m.n))
		b = binary.AppendUvarint(b, uint64(m.tmin))
		b = binary.AppendUvarint(b, uint64(m.tmax-m.tmin))
	}
	return sealFrame(b)
}

func decodeBlocks(blob []byte, n int) ([]blockMeta, error) {
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: string(body)}
	k := r.int()
	if k > len(body) {
		return nil, errDamaged
	}
	out := make([]blockMeta, k)
	at := 0
	for i := range out {
		out[i].start, out[i].n = at, r.int()
		out[i].tmin = int64(r.uvarint())
		out[i].tmax = out[i].tmin + int64(r.uvarint())
		at += out[i].n
	}
	if r.bad || at != n {
		return nil, errDamaged
	}
	return out, nil
}

// rollup counts a segment's rows by minute, service and level.
type rollup struct {
	services []string
	cells    []cell // in the order of minutes
}

type cell struct {
	minute  int64 // since 1970
	service int
	level   logline.Level
	n       int64
}

const microsAMinute = 60 * 1000 * 1000

// encodeRollup gives nothing when a row has a second service or level among its
// fields: then the counts would not tell the whole.
func encodeRollup(rows []row) []byte {
	type key struct {
		minute  int64
		service string
		level   logline.Level
	}
	counts := map[key]int64{}
	for i := range rows {
		r := &rows[i].rec
		for k := range r.Fields {
			if r.Fields[k].Key == "service" || r.Fields[k].Key == "level" {
				return nil
			}
		}
		counts[key{floorDiv(rows[i].id.Time, microsAMinute), r.Service, r.Level}]++
	}
	keys := make([]key, 0, len(counts))
	codes := map[string]int{}
	var services []string
	for k := range counts {
		keys = append(keys, k)
		if _, ok := codes[k.service]; !ok {
			codes[k.service] = len(services)
			services = append(services, k.service)
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.minute != b.minute {
			return int(a.minute - b.minute)
		}
		if a.level != b.level {
			return int(a.level - b.level)
		}
		return strings.Compare(a.service, b.service)
	})
	b := newFrame(len(keys)*4 + 256)
	b = binary.AppendUvarint(b, uint64(len(services)))
	for _, s := range services {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(keys)))
	minute := int64(0)
	for _, k := range keys {
		b = binary.AppendUvarint(b, uint64(k.minute-minute))
		minute = k.minute
		b = binary.AppendUvarint(b, uint64(codes[k.service])<<3|uint64(k.level))
		b = binary.AppendUvarint(b, uint64(counts[k]))
	}
	return sealFrame(b)
}

func decodeRollup(blob []byte) (*rollup, error) {
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: string(body)}
	k := r.int()
	if k > len(body) {
		return nil, errDamaged
	}
	out := &rollup{services: make([]string, k)}
	for i := range out.services {
		out.services[i] = r.string()
	}
	n := r.int()
	if n > len(body) {
		return nil, errDamaged
	}
	out.cells = make([]cell, n)
	minute := int64(0)
	for i := range out.cells {
		minute += int64(r.uvarint())
		c := r.uvarint()
		out.cells[i] = cell{minute, int(c >> 3), logline.Level(c & 7), int64(r.uvarint())}
		if out.cells[i].service >= k {
			return nil, errDamaged
		}
	}
	if r.bad {
		return nil, errDamaged
	}
	return out, nil
}
