package logstore

import (
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
	noID        = ^uint32(0)
)

func marked(mark, name string) string {
	if len(name) > markedMax {
		name = name[:markedMax]
	}
	return mark + name
}

// lexiconWriter collects (token, row) pairs of one chunk.
type lexiconWriter struct {
	ids    map[string]uint32
	tokens []string
	pairs  []uint64 // token<<32 | row
	buf    []string
}

func newLexiconWriter(rows int) *lexiconWriter {
	return &lexiconWriter{ids: make(map[string]uint32, 3*rows)}
}

func (l *lexiconWriter) id(token string) uint32 {
	id, ok := l.ids[token]
	if !ok {
		id = uint32(len(l.tokens))
		l.ids[token] = id
		l.tokens = append(l.tokens, token)
	}
	return id
}

func (l *lexiconWriter) add(token string, rowNo int) { l.pair(l.id(token), rowNo) }

func (l *lexiconWriter) pair(id uint32, rowNo int) {
	l.pairs = append(l.pairs, uint64(id)<<32|uint64(rowNo))
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

// leaves encodes what was collected, for a chunk of n rows.
func (l *lexiconWriter) leaves(n int) []leaf {
	order := make([]uint32, len(l.tokens))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(l.tokens[a], l.tokens[b]) })
	sorted, ends := groupPairs(l.pairs, len(l.tokens), n)
	var w leafWriter
	var token, body []byte
	for _, id := range order {
		from := uint32(0)
		if id > 0 {
			from = ends[id-1]
		}
		body = appendPosting(append(body[:0], 0), sorted[from:ends[id]], n)
		token = append(token[:0], l.tokens[id]...)
		w.add(token, body)
	}
	return w.end()
}

// leafWriter cuts rising tokens into leaves. A token's body is, for each chunk
// that has it, the chunk's place in the segment and a posting.
type leafWriter struct {
	out   []leaf
	cur   []byte
	first string
	prev  []byte
}

func (w *leafWriter) add(token, body []byte) {
	// A long body stands alone: its neighbours are not to be read with it.
	if w.cur != nil && (len(w.cur) >= leafTarget || len(body) >= leafTarget) {
		w.cut()
	}
	if w.cur == nil {
		w.cur, w.first, w.prev = newFrame(leafTarget+leafTarget/2), string(token), w.prev[:0]
	}
	shared := commonPrefix(w.prev, token)
	w.cur = append(w.cur, byte(shared))
	w.cur = binary.AppendUvarint(w.cur, uint64(len(token)-shared))
	w.cur = append(w.cur, token[shared:]...)
	w.cur = binary.AppendUvarint(w.cur, uint64(len(body)))
	w.cur = append(w.cur, body...)
	w.prev = append(w.prev[:0], token...)
}

func (w *leafWriter) cut() {
	w.out = append(w.out, leaf{w.first, sealFrame(w.cur)})
	w.cur = nil
}

func (w *leafWriter) end() []leaf {
	if w.cur != nil {
		w.cut()
	}
	return w.out
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

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b), 255)
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// The forms of a posting. Before it stands its length and form.
const (
	postList   = iota // differences of the rows
	postBitmap        // a bit for each row
	postAll           // nothing: every row
)

// appendPosting writes rising row numbers, possibly repeated, in the shortest
// form.
func appendPosting(b []byte, rows []uint32, n int) []byte {
	size, last, count := 0, -1, 0
	for _, r := range rows {
		if int(r) != last {
			size += (bits.Len32(uint32(int(r)-last)) + 6) / 7
			last = int(r)
			count++
		}
	}
	if count == n {
		return append(b, postAll)
	}
	if bitmap := (n + 7) / 8; size > bitmap {
		b = binary.AppendUvarint(b, uint64(bitmap)<<2|postBitmap)
		at := len(b)
		b = append(b, make([]byte, bitmap)...)
		for _, r := range rows {
			b[at+int(r>>3)] |= 1 << (r & 7)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(size)<<2) // postList
	last = -1
	for _, r := range rows {
		if int(r) != last {
			b = binary.AppendUvarint(b, uint64(int(r)-last))
			last = int(r)
		}
	}
	return b
}
