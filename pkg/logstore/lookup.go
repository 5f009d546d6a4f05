package logstore

import (
	"bytes"
	"database/sql/driver"
)

// hits is where a segment has a word.
type hits struct {
	mask uint64   // chunks that have it
	raw  []string // postings by chunk, of a word that is one token
	sets []bitset // rows by chunk, of a prefix
}

// into adds the rows of a chunk to a set.
func (h *hits) into(set bitset, chunk, n int) error {
	if h.mask&(1<<chunk) == 0 {
		return nil
	}
	if h.sets != nil {
		set.or(h.sets[chunk])
		return nil
	}
	return readPosting(h.raw[chunk], n, set)
}

// readPosting adds the rows of one posting to set.
func readPosting(posting string, n int, set bitset) error {
	r := reader{b: posting}
	h := r.int()
	body := r.rest()
	switch h & 3 {
	case postAll:
		set.fill(n)
	case postBitmap:
		if len(body) != (n+7)/8 {
			return errDamaged
		}
		for i := range len(body) {
			set[i>>3] |= uint64(body[i]) << (8 * (i & 7))
		}
		if n&63 != 0 {
			set[len(set)-1] &= 1<<(n&63) - 1
		}
	case postList:
		last := -1
		for i := 0; i < len(body); {
			d := uint64(body[i])
			i++
			if d >= 0x80 {
				list := reader{b: body, at: i - 1}
				d = list.uvarint()
				if list.bad {
					return errDamaged
				}
				i = list.at
			}
			if d == 0 || d > uint64(n) || last+int(d) >= n {
				return errDamaged
			}
			last += int(d)
			set.set(last)
		}
	default:
		return errDamaged
	}
	return nil
}

// eachPosting takes the body of a token apart. A posting has its head with it.
func eachPosting(body string, fn func(chunk int, posting string) error) error {
	r := reader{b: body}
	for r.left() > 0 {
		chunk := int(r.byte())
		at := r.at
		h := r.int()
		r.take(h >> 2)
		if r.bad {
			return errDamaged
		}
		if err := fn(chunk, body[at:r.at]); err != nil {
			return err
		}
	}
	return nil
}

const (
	leafExact = "SELECT data FROM leaf WHERE id=(SELECT leaf FROM lexeme WHERE lexicon=? AND first<=? ORDER BY first DESC LIMIT 1)"
	leafRange = "SELECT leaf.data FROM lexeme CROSS JOIN leaf ON leaf.id=lexeme.leaf WHERE lexeme.lexicon=? AND lexeme.first>? AND lexeme.first<? ORDER BY lexeme.first"
)

// lookup finds a word in those chunks of a segment that wanted names.
func (c *conn) lookup(seg *segment, w word, wanted uint64) (h hits, err error) {
	if w.prefix {
		h.sets = make([]bitset, len(seg.chunks))
	} else {
		h.raw = make([]string, len(seg.chunks))
	}
	take := func(chunk int, posting string) error {
		if chunk >= len(seg.chunks) {
			return errDamaged
		}
		if wanted&(1<<chunk) == 0 {
			return nil
		}
		h.mask |= 1 << chunk
		if !w.prefix {
			h.raw[chunk] = posting
			return nil
		}
		n := seg.chunks[chunk].n
		if h.sets[chunk] == nil {
			h.sets[chunk] = newBitset(n)
		}
		return readPosting(posting, n, h.sets[chunk])
	}
	body := func(_ []byte, body string) (bool, error) { return w.prefix, eachPosting(body, take) }
	token := []byte(w.token)
	data, err := c.blob(leafExact, seg.lexicon, token)
	if err == nil && data != nil {
		err = scanLeaf(data, token, w.prefix, body)
	}
	if err != nil || !w.prefix {
		return h, err
	}
	// The bytes FF stand in no token, so the range holds all with the prefix.
	err = c.each(leafRange, func(r []driver.Value) error {
		b, ok := r[0].([]byte)
		if !ok {
			return errDamaged
		}
		return scanLeaf(b, token, true, body)
	}, seg.lexicon, token, append(bytes.Clone(token), 0xff))
	return h, err
}

// scanLeaf calls fn for the token, or for all that begin with it, until fn says
// that there is no need for more.
func scanLeaf(data, want []byte, prefix bool, fn func(token []byte, body string) (more bool, err error)) error {
	leaf, err := openFrame(data)
	if err != nil {
		return err
	}
	r := reader{b: leaf}
	var cur []byte
	for r.left() > 0 {
		shared := int(r.byte())
		suffix := r.string()
		body := r.string()
		if r.bad || shared > len(cur) {
			return errDamaged
		}
		cur = append(cur[:shared], suffix...)
		switch cmp := bytes.Compare(cur, want); {
		case cmp == 0, prefix && bytes.HasPrefix(cur, want):
			if more, err := fn(cur, body); !more || err != nil {
				return err
			}
		case cmp > 0:
			return nil
		}
	}
	return nil
}
