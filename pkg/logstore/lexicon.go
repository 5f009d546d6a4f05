package logstore

import (
	"bytes"
	"database/sql/driver"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"vpnd/pkg/logquery"
)

// A segment's lexicon is its tokens in order, each with the rows that have it,
// cut into leaves that are found by their first token. Services, files and
// levels are not text, so they stand there with a prefix that no token has.
const (
	serviceMark = "\x01"
	fileMark    = "\x02"
	levelMark   = "\x03" // and nothing more for rows without a level
	markedMax   = 128    // bytes of such a name that count
	leafTarget  = 1400   // bytes; a few leaves share a page
)

func marked(mark, name string) string {
	if len(name) > markedMax {
		name = name[:markedMax]
	}
	return mark + name
}

// lexiconWriter collects (token, row) pairs of one segment.
type lexiconWriter struct {
	ids    map[string]uint32
	tokens []string
	pairs  []uint64 // token<<32 | row
	buf    []string
}

func newLexiconWriter() *lexiconWriter {
	return &lexiconWriter{ids: make(map[string]uint32, 1<<14)}
}

func (l *lexiconWriter) id(token string) uint32 {
	id, ok := l.ids[token]
	if !ok {
		// A token may be a piece of a line: a copy keeps the line from staying.
		token = strings.Clone(token)
		id = uint32(len(l.tokens))
		l.ids[token] = id
		l.tokens = append(l.tokens, token)
	}
	return id
}

func (l *lexiconWriter) add(token string, rowNo int) {
	l.pairs = append(l.pairs, uint64(l.id(token))<<32|uint64(rowNo))
}

func (l *lexiconWriter) text(v string, rowNo int) {
	l.buf = logquery.AppendTokens(l.buf[:0], v)
	for _, t := range l.buf {
		l.add(t, rowNo)
	}
}

// column adds a whole column whose i-th value belongs to rows[i]. The tokens of
// a repeated value are found once.
func (l *lexiconWriter) column(values []string, rows []int, dict []string, codes []uint16) {
	if len(codes) != len(values) {
		for i, v := range values {
			l.text(v, rows[i])
		}
		return
	}
	ids := make([][]uint32, len(dict))
	for i, v := range dict {
		l.buf = logquery.AppendTokens(l.buf[:0], v)
		for _, t := range l.buf {
			ids[i] = append(ids[i], l.id(t))
		}
	}
	for i, c := range codes {
		for _, id := range ids[c] {
			l.pairs = append(l.pairs, uint64(id)<<32|uint64(rows[i]))
		}
	}
}

// mark adds a column of names.
func (l *lexiconWriter) mark(mark string, values []string, rows []int) {
	last, lastID := "", uint32(0)
	for i, v := range values {
		if v == "" {
			continue
		}
		if v != last {
			last, lastID = v, l.id(marked(mark, v))
		}
		l.pairs = append(l.pairs, uint64(lastID)<<32|uint64(rows[i]))
	}
}

type leaf struct {
	first string
	data  []byte
}

// leaves encodes what was collected, for a segment of n rows.
func (l *lexiconWriter) leaves(n int) []leaf {
	order := make([]uint32, len(l.tokens))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(l.tokens[a], l.tokens[b]) })
	sorted, ends := groupPairs(l.pairs, len(l.tokens), n)

	var out []leaf
	var cur []byte
	first, prev := "", ""
	for _, id := range order {
		from := uint32(0)
		if id > 0 {
			from = ends[id-1]
		}
		t := l.tokens[id]
		if len(cur) >= leafTarget {
			out = append(out, leaf{first, sealFrame(cur)})
			cur = nil
		}
		if cur == nil {
			cur, first, prev = newFrame(2*leafTarget), t, ""
		}
		shared := commonPrefix(prev, t)
		cur = append(cur, byte(shared))
		cur = appendString(cur, t[shared:])
		cur = appendPosting(cur, sorted[from:ends[id]], n)
		prev = t
	}
	if cur != nil {
		out = append(out, leaf{first, sealFrame(cur)})
	}
	return out
}

// groupPairs sorts the rows of each token, by two passes that count, and gives
// where each token's rows end.
func groupPairs(pairs []uint64, tokens, rows int) (sorted []uint32, ends []uint32) {
	at := make([]uint32, rows+1)
	for _, p := range pairs {
		at[uint32(p)+1]++
	}
	for i := range rows {
		at[i+1] += at[i]
	}
	byRow := make([]uint64, len(pairs))
	for _, p := range pairs {
		byRow[at[uint32(p)]] = p
		at[uint32(p)]++
	}
	ends = make([]uint32, tokens+1)
	for _, p := range pairs {
		ends[p>>32+1]++
	}
	for i := range tokens {
		ends[i+1] += ends[i]
	}
	sorted = make([]uint32, len(pairs))
	for _, p := range byRow {
		sorted[ends[p>>32]] = uint32(p)
		ends[p>>32]++
	}
	return sorted, ends[:tokens]
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b), 255)
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// appendPosting writes rising row numbers, possibly repeated, as a list of
// differences, or as a bitmap where that is shorter; before it its length, so
// that it can be passed over.
func appendPosting(b []byte, rows []uint32, n int) []byte {
	size, last := 0, -1
	for _, r := range rows {
		if int(r) != last {
			size += (bits.Len32(uint32(int(r)-last)) + 6) / 7
			last = int(r)
		}
	}
	if bitmap := (n + 7) / 8; size > bitmap {
		b = binary.AppendUvarint(b, uint64(bitmap)<<1|1)
		at := len(b)
		b = append(b, make([]byte, bitmap)...)
		for _, r := range rows {
			b[at+int(r>>3)] |= 1 << (r & 7)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(size)<<1)
	last = -1
	for _, r := range rows {
		if int(r) != last {
			b = binary.AppendUvarint(b, uint64(int(r)-last))
			last = int(r)
		}
	}
	return b
}

// readPosting adds the rows of one posting to set, or passes over it when set
// is nil.
func readPosting(r *reader, n int, set bitset) {
	h := r.int()
	body := r.take(h >> 1)
	switch {
	case set == nil:
	case h&1 != 0:
		if len(body) != (n+7)/8 {
			r.bad = true
			return
		}
		for i := range len(body) {
			set[i>>3] |= uint64(body[i]) << (8 * (i & 7))
		}
		if n&63 != 0 {
			set[len(set)-1] &= 1<<(n&63) - 1
		}
	default:
		list := reader{b: body}
		last := -1
		for list.left() > 0 {
			d := list.uvarint()
			if list.bad || d == 0 || d > uint64(n) || last+int(d) >= n {
				r.bad = true
				return
			}
			last += int(d)
			set.set(last)
		}
	}
}

// lookup adds to set the rows of segment no that have the token or, with
// prefix, any token that begins with it. found tells whether there was one.
func (c *conn) lookup(no int64, n int, token string, prefix bool, set bitset) (found bool, err error) {
	data, err := c.blob("SELECT data FROM leaf WHERE segment=? AND first<=? ORDER BY first DESC LIMIT 1", no, []byte(token))
	if err != nil {
		return false, err
	}
	if data != nil {
		if found, err = scanLeaf(data, n, token, prefix, set); err != nil || !prefix {
			return found, err
		}
	}
	if !prefix {
		return found, nil
	}
	// The bytes FF stand in no token, so the range holds all with the prefix.
	err = c.each("SELECT data FROM leaf WHERE segment=? AND first>? AND first<?", func(found1 []driver.Value) error {
		b, ok := found1[0].([]byte)
		if !ok {
			return errDamaged
		}
		f, err := scanLeaf(b, n, token, true, set)
		found = found || f
		return err
	}, no, []byte(token), append([]byte(token), 0xff))
	return found, err
}

func scanLeaf(data []byte, n int, token string, prefix bool, set bitset) (found bool, err error) {
	body, err := openFrame(data)
	if err != nil {
		return false, err
	}
	// Tokens are compared in place; only postings that are wanted are read.
	r := reader{b: string(body)}
	var cur []byte
	want := []byte(token)
	for r.left() > 0 && !r.bad {
		shared := int(r.byte())
		suffix := r.string()
		if shared > len(cur) {
			return false, errDamaged
		}
		cur = append(cur[:shared], suffix...)
		switch cmp := bytes.Compare(cur, want); {
		case cmp == 0, prefix && bytes.HasPrefix(cur, want):
			readPosting(&r, n, set)
			found = true
			if !prefix && !r.bad {
				return true, nil
			}
		case cmp > 0:
			return found, nil
		default:
			readPosting(&r, n, nil)
		}
	}
	if r.bad {
		return false, errDamaged
	}
	return found, nil
}
