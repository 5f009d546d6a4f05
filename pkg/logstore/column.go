package logstore

import (
	"encoding/binary"
	"math/bits"
	"strconv"
)

// A column is one value for each row of a part (or for each row that has the
// field), in one of four forms. Every form gives the value at a place without
// reading those before it: to show one row, many columns are opened for it.
const (
	formPlain  = iota // texts
	formDict8         // distinct texts, then a byte for each value
	formDict16        // the same with two bytes
	formInts          // whole numbers: base, width, then value-base in width bytes
)

// columnWriter looks at the values of a chunk once, and then writes the column
// of the chunk and those of its blocks.
type columnWriter struct {
	seen   map[string]uint16
	form   byte
	values []string
	dict   []string
	codes  []uint16 // of each value; empty when there is no dictionary
	ints   []int64

	place []uint16 // of a word of dict in that of a block
	used  []uint32 // the block that place is of
	round uint32
	part  []string
	moved []uint16
}

func (w *columnWriter) look(values []string) {
	w.values = values
	w.index(values)
	w.form = formDict8
	if len(w.dict) > 256 {
		w.form = formDict16
	}
	if len(w.codes) == len(values) && w.form == formDict8 {
		return
	}
	if w.asInts(values) {
		w.form = formInts
		w.codes = w.codes[:0]
	} else if len(w.codes) < len(values) {
		w.form = formPlain
		w.codes = w.codes[:0]
	}
}

// size is about how long the whole column is.
func (w *columnWriter) size() int {
	switch w.form {
	case formInts:
		return intsWidth(w.ints) * len(w.ints)
	case formPlain:
		return textsSize(w.values)
	}
	return textsSize(w.dict) + int(w.form)*len(w.codes)
}

// index fills dict and codes, and gives up when most values differ.
func (w *columnWriter) index(values []string) {
	if w.seen == nil {
		w.seen = map[string]uint16{}
	}
	clear(w.seen)
	w.dict, w.codes = w.dict[:0], w.codes[:0]
	last, lastCode := "", -1
	for _, v := range values {
		if lastCode >= 0 && v == last {
			w.codes = append(w.codes, uint16(lastCode))
			continue
		}
		c, ok := w.seen[v]
		if !ok {
			if len(w.dict) > len(values)/2+1 || len(w.dict) > 1<<16-1 {
				w.codes = w.codes[:0]
				return
			}
			c = uint16(len(w.dict))
			w.seen[v] = c
			w.dict = append(w.dict, v)
		}
		w.codes = append(w.codes, c)
		last, lastCode = v, int(c)
	}
}

// asInts reads values that are whole numbers written in the one usual way.
func (w *columnWriter) asInts(values []string) bool {
	w.ints = w.ints[:0]
	for _, v := range values {
		n, ok := usualInt(v)
		if !ok {
			return false
		}
		w.ints = append(w.ints, n)
	}
	return true
}

func usualInt(v string) (int64, bool) {
	if len(v) == 0 || len(v) > 18 || (v[0] == '0' || v[0] == '+') && len(v) > 1 || v[0] == '-' && (len(v) == 1 || v[1] == '0') {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil
}

// whole appends the column of the chunk.
func (w *columnWriter) whole(b []byte) []byte {
	switch w.form {
	case formInts:
		return appendInts(b, w.ints)
	case formPlain:
		return appendPlain(b, w.values)
	}
	return appendDict(b, w.dict, w.codes)
}

// block appends the column of the values [from, to).
func (w *columnWriter) block(b []byte, from, to int) []byte {
	switch w.form {
	case formInts:
		return appendInts(b, w.ints[from:to])
	case formPlain:
		return appendPlain(b, w.values[from:to])
	}
	if n := len(w.dict); len(w.place) < n {
		w.place, w.used, w.round = make([]uint16, n), make([]uint32, n), 0
	}
	w.round++
	w.part, w.moved = w.part[:0], w.moved[:0]
	for _, c := range w.codes[from:to] {
		if w.used[c] != w.round {
			w.used[c] = w.round
			w.place[c] = uint16(len(w.part))
			w.part = append(w.part, w.dict[c])
		}
		w.moved = append(w.moved, w.place[c])
	}
	if len(w.part) > (to-from)/2+1 {
		return appendPlain(b, w.values[from:to])
	}
	return appendDict(b, w.part, w.moved)
}

func appendPlain(b []byte, values []string) []byte {
	b = append(b, formPlain)
	b = binary.AppendUvarint(b, uint64(len(values)))
	return appendTexts(b, values)
}

func appendDict(b []byte, dict []string, codes []uint16) []byte {
	form := byte(formDict8)
	if len(dict) > 256 {
		form = formDict16
	}
	b = append(b, form)
	b = binary.AppendUvarint(b, uint64(len(codes)))
	b = binary.AppendUvarint(b, uint64(len(dict)))
	b = appendTexts(b, dict)
	if len(dict) == 1 {
		return b
	}
	for _, c := range codes {
		b = append(b, byte(c))
		if form == formDict16 {
			b = append(b, byte(c>>8))
		}
	}
	return b
}

func intsWidth(values []int64) int {
	if len(values) == 0 {
		return 0
	}
	lo, hi := values[0], values[0]
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	return (bits.Len64(uint64(hi-lo)) + 7) / 8
}

func appendInts(b []byte, values []int64) []byte {
	lo := int64(0)
	for i, v := range values {
		if i == 0 || v < lo {
			lo = v
		}
	}
	width := intsWidth(values)
	b = append(b, formInts)
	b = binary.AppendUvarint(b, uint64(len(values)))
	b = binary.AppendUvarint(b, uint64(lo))
	b = append(b, byte(width))
	if width == 4 { // times
		for _, v := range values {
			b = binary.LittleEndian.AppendUint32(b, uint32(v-lo))
		}
		return b
	}
	for _, v := range values {
		b = appendFixed(b, uint64(v-lo), width)
	}
	return b
}

func appendFixed(b []byte, v uint64, width int) []byte {
	if width == 2 {
		return append(b, byte(v), byte(v>>8))
	}
	for range width {
		b = append(b, byte(v))
		v >>= 8
	}
	return b
}

// fixed is the i-th number of width bytes in s.
func fixed(s string, i, width int) uint64 {
	switch width {
	case 0:
		return 0
	case 1:
		return uint64(s[i])
	case 2:
		return uint64(s[2*i]) | uint64(s[2*i+1])<<8
	case 4:
		p := s[4*i : 4*i+4]
		return uint64(p[0]) | uint64(p[1])<<8 | uint64(p[2])<<16 | uint64(p[3])<<24
	}
	var v uint64
	p := s[i*width : (i+1)*width]
	for k := len(p) - 1; k >= 0; k-- {
		v = v<<8 | uint64(p[k])
	}
	return v
}

// texts are strings one after the other, found by where each ends.
type texts struct {
	n, width   int
	ends, body string
}

func textsSize(values []string) int {
	n := 0
	for _, v := range values {
		n += len(v)
	}
	return n + len(values)*endWidth(n)
}

func endWidth(size int) int { return max(1, (bits.Len(uint(size))+7)/8) }

func appendTexts(b []byte, values []string) []byte {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	width := endWidth(size)
	b = append(b, byte(width))
	end := 0
	for _, v := range values {
		end += len(v)
		b = appendFixed(b, uint64(end), width)
	}
	for _, v := range values {
		b = append(b, v...)
	}
	return b
}

func (r *reader) texts(n int) texts {
	t := texts{n: n, width: int(r.byte())}
	if t.width < 1 || t.width > 4 || n > r.left() {
		r.fail()
		return texts{}
	}
	t.ends = r.take(n * t.width)
	if r.bad || n == 0 {
		return t
	}
	t.body = r.take(int(fixed(t.ends, n-1, t.width)))
	return t
}

func (t *texts) at(i int) string {
	if i >= t.n {
		return ""
	}
	from := uint64(0)
	if i > 0 {
		from = fixed(t.ends, i-1, t.width)
	}
	to := fixed(t.ends, i, t.width)
	if from > to || to > uint64(len(t.body)) {
		return ""
	}
	return t.body[from:to]
}

// empty is the first text that is empty, or -1.
func (t *texts) empty() int {
	last := uint64(0)
	for i := range t.n {
		end := fixed(t.ends, i, t.width)
		if end == last {
			return i
		}
		last = end
	}
	return -1
}

// column is an opened column. Values are named by codes: equal codes are equal
// values, though in the forms without dictionary not the other way round.
type column struct {
	n     int
	form  byte
	texts texts  // plain: each value; dict: each distinct one
	codes string // dict; empty when there is one text
	body  string // ints
	base  int64
	width int
}

func openColumn(body string) (*column, error) {
	r := reader{b: body}
	c := &column{form: r.byte()}
	c.n = r.int()
	switch c.form {
	case formPlain:
		c.texts = r.texts(c.n)
	case formDict8, formDict16:
		d := r.int()
		if d == 0 && c.n > 0 || c.n > 1<<24 {
			return nil, errDamaged
		}
		c.texts = r.texts(d)
		if d != 1 {
			c.codes = r.take(c.n * int(c.form))
		}
	case formInts:
		c.base = int64(r.uvarint())
		c.width = int(r.byte())
		if c.width > 8 || c.n > 1<<24 {
			return nil, errDamaged
		}
		c.body = r.take(c.n * c.width)
	default:
		return nil, errDamaged
	}
	if r.bad || r.left() > 0 {
		return nil, errDamaged
	}
	return c, nil
}

func (c *column) dictionary() bool { return c.form == formDict8 || c.form == formDict16 }

// count is how many codes there may be.
func (c *column) count() int {
	if c.dictionary() {
		return c.texts.n
	}
	return c.n
}

func (c *column) code(i int) int {
	switch c.form {
	case formDict8:
		if c.codes == "" {
			return 0
		}
		return min(int(c.codes[i]), c.texts.n-1)
	case formDict16:
		if c.codes == "" {
			return 0
		}
		return min(int(c.codes[2*i])|int(c.codes[2*i+1])<<8, c.texts.n-1)
	}
	return i
}

// val is the text of a code.
func (c *column) val(code int) string {
	if c.form == formInts {
		return strconv.FormatInt(c.int(code), 10)
	}
	return c.texts.at(code)
}

func (c *column) at(i int) string { return c.val(c.code(i)) }

// int is the number at i; for the form of numbers only.
func (c *column) int(i int) int64 { return c.base + int64(fixed(c.body, i, c.width)) }

// search is the first position whose number is at least v, in a column that
// rises.
func (c *column) search(v int64) int {
	lo, hi := 0, c.n
	for lo < hi {
		m := (lo + hi) / 2
		if c.int(m) < v {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}
