package logstore

import (
	"database/sql/driver"
	"encoding/binary"
)

// Bounds of chunks, their blocks and segments. A block is what is read to show
// one row, a chunk what is read of a field to count its values; a segment is
// what one lookup of a word costs. A change of any raises formatVersion: files
// do not tell them.
const (
	segmentRows  = 8192 // of a chunk
	segmentBytes = 8 << 20
	blockRows    = 128
	blockBytes   = 128 << 10
	mergeChunks  = 16 // of a segment; a set of chunks is a word of 64 bits
)

// Columns. Fields have the numbers of the day's table key.
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

// columnID puts the columns of a chunk, and blockID its blocks, beside each
// other.
func columnID(chunk int64, col int) int64 { return chunk<<16 | int64(col) }
func blockID(chunk int64, no int) int64   { return chunk<<16 | int64(no) }
func leafID(lexicon int64, no int) int64  { return lexicon<<24 | int64(no) }

// chunk is up to 8192 rows in the order of time, then arrival.
type chunk struct {
	no         int64
	n          int // rows
	tmin, tmax int64
	levels     int   // bit l: rows of level l
	blocks     []int // first row of each block; nil: one every blockRows
	wide       []int // columns that only its blocks have

	seg *segment
	at  int // in seg
}

// segment is some chunks with one lexicon.
type segment struct {
	no         int64
	lexicon    int64 // number of its leaves
	n          int   // rows
	tmin, tmax int64
	levels     int
	bytes      int // of the lexicon
	chunks     []chunk

	looked bool     // what the plan's words found is in found
	mask   uint64   // chunks that may have rows of the plan
	left   int      // chunks that were not asked yet
	found  []found  // see scan.look
	zones  []string // of each chunk, once they were read
}

// newSegment is of chunks of one day, oldest first.
func newSegment(no int64, chunks []chunk) *segment {
	s := &segment{no: no, lexicon: no, chunks: chunks, tmin: maxMicro, tmax: minMicro}
	for i := range chunks {
		c := &chunks[i]
		c.seg, c.at = s, i
		s.n += c.n
		s.tmin, s.tmax = min(s.tmin, c.tmin), max(s.tmax, c.tmax)
		s.levels |= c.levels
	}
	return s
}

const segmentQuery = "SELECT no, lexicon, bytes, chunks FROM segment"

func readSegment(r []driver.Value) (*segment, error) {
	blob, ok := r[3].([]byte)
	if !ok {
		return nil, errDamaged
	}
	chunks, err := decodeChunks(blob)
	if err != nil {
		return nil, err
	}
	s := newSegment(integer(r[0]), chunks)
	s.lexicon, s.bytes = integer(r[1]), int(integer(r[2]))
	return s, nil
}

func encodeChunks(chunks []chunk) []byte {
	b := newFrame(len(chunks) * 64)
	b = binary.AppendUvarint(b, uint64(len(chunks)))
	for i := range chunks {
		c := &chunks[i]
		b = binary.AppendUvarint(b, uint64(c.no))
		b = binary.AppendUvarint(b, uint64(c.n))
		b = binary.AppendUvarint(b, uint64(c.tmin))
		b = binary.AppendUvarint(b, uint64(c.tmax-c.tmin))
		b = append(b, byte(c.levels))
		b = appendNumbers(b, c.wide)
		b = appendNumbers(b, c.blocks)
	}
	return sealFrame(b)
}

// appendNumbers writes numbers that rise.
func appendNumbers(b []byte, numbers []int) []byte {
	b = binary.AppendUvarint(b, uint64(len(numbers)))
	last := 0
	for _, n := range numbers {
		b = binary.AppendUvarint(b, uint64(n-last))
		last = n
	}
	return b
}

func (r *reader) numbers() []int {
	n := r.int()
	if n > r.left() {
		r.fail()
	}
	if n == 0 || r.bad {
		return nil
	}
	out := make([]int, n)
	last := 0
	for i := range out {
		last += r.int()
		out[i] = last
	}
	return out
}

func decodeChunks(blob []byte) ([]chunk, error) {
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: body}
	k := r.int()
	if k < 1 || k > 64 {
		return nil, errDamaged
	}
	out := make([]chunk, k)
	for i := range out {
		c := &out[i]
		c.no, c.n = int64(r.uvarint()), r.int()
		c.tmin = int64(r.uvarint())
		c.tmax = c.tmin + int64(r.uvarint())
		c.levels = int(r.byte())
		c.wide, c.blocks = r.numbers(), r.numbers()
		if c.n < 1 || c.n > 1<<20 || c.tmax < c.tmin || c.tmax-c.tmin > microsADay || !c.blocksFit() {
			return nil, errDamaged
		}
	}
	if r.bad {
		return nil, errDamaged
	}
	return out, nil
}

func (c *chunk) blocksFit() bool {
	for i, from := range c.blocks {
		if (i == 0) != (from == 0) || i > 0 && from <= c.blocks[i-1] || from >= c.n {
			return false
		}
	}
	return true
}

func (c *chunk) countBlocks() int {
	if c.blocks == nil {
		return (c.n + blockRows - 1) / blockRows
	}
	return len(c.blocks)
}

// span is the rows [from, to) of a block.
func (c *chunk) span(block int) (from, to int) {
	switch {
	case c.blocks == nil:
		return block * blockRows, min((block+1)*blockRows, c.n)
	case block+1 < len(c.blocks):
		return c.blocks[block], c.blocks[block+1]
	}
	return c.blocks[block], c.n
}

// insertLeaves writes leaves of a lexicon, of which from is the first.
func insertLeaves(c *conn, lexicon int64, from int, leaves []leaf) error {
	for i, l := range leaves {
		id := leafID(lexicon, from+i)
		if err := c.run("INSERT INTO leaf (id, data) VALUES (?, ?)", id, l.data); err != nil {
			return err
		}
		if err := c.run("INSERT INTO lexeme (lexicon, first, leaf) VALUES (?, ?, ?)", lexicon, []byte(l.first), id); err != nil {
			return err
		}
	}
	return nil
}

// dropLeaves removes the first n leaves of a lexicon, and tells whether some are
// left.
func dropLeaves(c *conn, lexicon int64, n int) (left bool, err error) {
	from, to := leafID(lexicon, 0), leafID(lexicon+1, 0)
	if err := c.run("DELETE FROM lexeme WHERE lexicon=?1 AND first IN (SELECT first FROM lexeme WHERE lexicon=?1 ORDER BY first LIMIT ?2)", lexicon, int64(n)); err != nil {
		return false, err
	}
	if err := c.run("DELETE FROM leaf WHERE id IN (SELECT id FROM leaf WHERE id>=? AND id<? ORDER BY id LIMIT ?)", from, to, int64(n)); err != nil {
		return false, err
	}
	return c.has("SELECT 1 FROM leaf WHERE id>=? AND id<? LIMIT 1", from, to)
}

// enterSegment makes a segment known whose chunks and leaves are written.
func enterSegment(c *conn, s *segment, leaves []leaf, zones []string) error {
	size := 0
	for i := range leaves {
		size += len(leaves[i].data)
	}
	b := newFrame(0)
	for _, z := range zones {
		b = appendString(b, z)
	}
	if err := c.run("INSERT INTO zone (segment, data) VALUES (?, ?)", s.no, sealFrame(b)); err != nil {
		return err
	}
	return c.run("INSERT INTO segment (no, lexicon, tmin, tmax, levels, rows, bytes, chunks) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		s.no, s.lexicon, s.tmin, s.tmax, int64(s.levels), int64(s.n), int64(size), encodeChunks(s.chunks))
}

// leaveSegment makes a segment unknown, but keeps its chunks and leaves.
func leaveSegment(c *conn, no int64) error {
	if err := c.run("DELETE FROM segment WHERE no=?", no); err != nil {
		return err
	}
	return c.run("DELETE FROM zone WHERE segment=?", no)
}

func insertChunk(c *conn, b *built) error {
	for _, col := range b.cols {
		if err := c.run("INSERT INTO col (id, data) VALUES (?, ?)", columnID(b.no, col.col), col.data); err != nil {
			return err
		}
	}
	for i, data := range b.rows {
		if err := c.run("INSERT INTO block (id, data) VALUES (?, ?)", blockID(b.no, i), data); err != nil {
			return err
		}
	}
	if b.rollup == nil {
		return nil
	}
	return c.run("INSERT INTO rollup (chunk, data) VALUES (?, ?)", b.no, b.rollup)
}

func dropChunk(c *conn, no int64) error {
	if err := c.run("DELETE FROM rollup WHERE chunk=?", no); err != nil {
		return err
	}
	if err := c.run("DELETE FROM col WHERE id>=? AND id<?", columnID(no, 0), columnID(no+1, 0)); err != nil {
		return err
	}
	return c.run("DELETE FROM block WHERE id>=? AND id<?", blockID(no, 0), blockID(no+1, 0))
}

// segmentZones reads what the chunks of a segment say about their fields.
func (c *conn) segmentZones(s *segment) ([]string, error) {
	if s.zones != nil {
		return s.zones, nil
	}
	blob, err := c.blob("SELECT data FROM zone WHERE segment=?", s.no)
	if err != nil {
		return nil, err
	}
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: body}
	out := make([]string, len(s.chunks))
	for i := range out {
		out[i] = r.string()
	}
	if r.bad {
		return nil, errDamaged
	}
	s.zones = out
	return out, nil
}
