package logstore

import (
	"encoding/binary"
	"math/bits"
	"strconv"
)

// A column is one value for each row of a block (or for each row that has the
// field), in one of four forms; the smallest that fits is taken.
const (
	formPlain  = iota // lengths, then the texts
	formDict8         // distinct texts, then a byte for each value
	formDict16        // the same with two bytes
	formInts          // whole numbers: base, width, then value-base in width bytes
)

// columnWriter encodes columns. After encode, dict and codes say which values
// were repeated; codes is empty when the column is not in a dictionary form.
type columnWriter struct {
	seen  map[string]uint16
	dict  []string
	codes []uint16
}

func (w *columnWriter) encode(values []string) []byte {
	w.index(values)
	if len(w.dict) > 256 || len(w.codes) < len(values) {
		if ints, ok := asInts(values); ok {
			w.codes = w.codes[:0]
			return encodeInts(ints)
		}
	}
	size := 0
	for _, v := range w.dict {
		size += len(v)
	}
	if len(w.codes) == len(values) {
		b := newFrame(size + 3*len(w.dict) + 2*len(values) + 8)
		form := byte(formDict8)
		if len(w.dict) > 256 {
			form = formDict16
		}
		b = append(b, form)
		b = binary.AppendUvarint(b, uint64(len(values)))
		b = binary.AppendUvarint(b, uint64(len(w.dict)))
		for _, v := range w.dict {
			b = appendString(b, v)
		}
		if len(w.dict) == 1 {
			return sealFrame(b)
		}
		for _, c := range w.codes {
			b = append(b, byte(c))
			if form == formDict16 {
				b = append(b, byte(c>>8))
			}
		}
		return sealFrame(b)
	}
	size = 0
	for _, v := range values {
		size += len(v) + 2
	}
	b := newFrame(size + 8)
	b = append(b, formPlain)
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = binary.AppendUvarint(b, uint64(len(v)))
	}
	for _, v := range values {
		b = append(b, v...)
	}
	return sealFrame(b)
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
			if len(w.dict) > len(values)/2+1 {
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
func asInts(values []string) ([]int64, bool) {
	out := make([]int64, len(values))
	for i, v := range values {
		if len(v) == 0 || len(v) > 18 || (v[0] == '0' || v[0] == '+') && len(v) > 1 || v[0] == '-' && (len(v) == 1 || v[1] == '0') {
			return nil, false
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

func encodeInts(values []int64) []byte {
	lo, hi := int64(0), int64(0)
	for i, v := range values {
		if i == 0 || v < lo {
			lo = v
		}
		if i == 0 || v > hi {
			hi = v
		}
	}
	width := (bits.Len64(uint64(hi-lo)) + 7) / 8
	b := newFrame(len(values)*width + 16)
	b = append(b, formInts)
	b = binary.AppendUvarint(b, uint64(len(values)))
	b = binary.AppendUvarint(b, uint64(lo))
	b = append(b, byte(width))
	for _, v := range values {
		d := uint64(v - lo)
		for range width {
			b = append(b, byte(d))
			d >>= 8
		}
	}
	return sealFrame(b)
}

// column is a decoded column. Values are named by codes: equal codes are equal
// values, though in the forms without dictionary not the other way round.
type column struct {
	n     int
	form  byte
	body  string   // ints: the numbers; dict: the codes; plain: the texts
	vals  []string // dict
	ends  []uint32 // plain: of each text in body
	base  int64
	width int
}

func decodeColumn(blob []byte) (*column, error) {
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: string(body)}
	c := &column{form: r.byte()}
	c.n = r.int()
	switch c.form {
	case formPlain:
		if c.n > r.left() {
			return nil, errDamaged
		}
		c.ends = make([]uint32, c.n)
		end := 0
		for i := range c.ends {
			end += r.int()
			c.ends[i] = uint32(end)
		}
		if c.body = r.rest(); end != len(c.body) {
			return nil, errDamaged
		}
	case formDict8, formDict16:
		d := r.int()
		if d == 0 && c.n > 0 || d > r.left() || c.n > 1<<24 {
			return nil, errDamaged
		}
		c.vals = make([]string, d)
		for i := range c.vals {
			c.vals[i] = r.string()
		}
		c.body = r.rest()
		want := c.n * int(c.form)
		if d == 1 {
			want = 0
		}
		if len(c.body) != want || !c.codesFit() {
			return nil, errDamaged
		}
	case formInts:
		c.base = int64(r.uvarint())
		c.width = int(r.byte())
		c.body = r.rest()
		if c.width > 8 || len(c.body) != c.n*c.width || c.n > 1<<24 {
			return nil, errDamaged
		}
	default:
		return nil, errDamaged
	}
	if r.bad {
		return nil, errDamaged
	}
	return c, nil
}

func (c *column) codesFit() bool {
	for i := range c.n {
		if c.code(i) >= len(c.vals) {
			return false
		}
	}
	return true
}

// codes is how many codes there may be.
func (c *column) codes() int {
	if c.form == formDict8 || c.form == formDict16 {
		return len(c.vals)
	}
	return c.n
}

func (c *column) code(i int) int {
	switch c.form {
	case formDict8:
		if len(c.body) == 0 {
			return 0
		}
		return int(c.body[i])
	case formDict16:
		if len(c.body) == 0 {
			return 0
		}
		return int(c.body[2*i]) | int(c.body[2*i+1])<<8
	}
	return i
}

// val is the text of a code.
func (c *column) val(code int) string {
	switch c.form {
	case formInts:
		return strconv.FormatInt(c.int(code), 10)
	case formPlain:
		from := uint32(0)
		if code > 0 {
			from = c.ends[code-1]
		}
		return c.body[from:c.ends[code]]
	}
	return c.vals[code]
}

func (c *column) at(i int) string { return c.val(c.code(i)) }

// int is the number at i; for the form of numbers only.
func (c *column) int(i int) int64 {
	var d uint64
	p := c.body[i*c.width : (i+1)*c.width]
	for k := len(p) - 1; k >= 0; k-- {
		d = d<<8 | uint64(p[k])
	}
	return c.base + int64(d)
}

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
