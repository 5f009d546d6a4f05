package logstore

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"unsafe"
)

// Every blob begins with the CRC-32C of the rest, so that a page overwritten by
// something else is noticed and not answered from.
const frameLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFrame(capacity int) []byte { return make([]byte, frameLen, capacity+frameLen) }

func sealFrame(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[frameLen:], castagnoli))
	return b
}

// openFrame gives the content of a blob, which nobody may change any more: the
// content is the blob itself and no copy, since most of what is read to answer
// a query is only looked through.
func openFrame(b []byte) (string, error) {
	if len(b) < frameLen || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[frameLen:], castagnoli) {
		return "", errDamaged
	}
	b = b[frameLen:]
	return unsafe.String(unsafe.SliceData(b), len(b)), nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// reader takes a blob apart. After the first thing that does not fit, it gives
// zeros and bad is set.
type reader struct {
	b   string
	at  int
	bad bool
}

func (r *reader) left() int { return len(r.b) - r.at }

// rest is what was not read yet.
func (r *reader) rest() string { return r.b[r.at:] }

func (r *reader) fail() { r.bad, r.at = true, len(r.b) }

func (r *reader) uvarint() uint64 {
	var x uint64
	for i := 0; i < binary.MaxVarintLen64 && r.at < len(r.b); i++ {
		c := r.b[r.at]
		r.at++
		x |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return x
		}
	}
	r.fail()
	return 0
}

func (r *reader) int() int {
	n := r.uvarint()
	if n > 1<<31 {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.fail()
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) take(n int) string {
	if n < 0 || n > r.left() {
		r.fail()
		return ""
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) string() string { return r.take(r.int()) }

// bitset is a set of row numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (s bitset) set(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s bitset) clear(i int)    { s[i>>6] &^= 1 << (i & 63) }
func (s bitset) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

func (s bitset) fill(n int) {
	for i := range s {
		s[i] = ^uint64(0)
	}
	if n&63 != 0 {
		s[len(s)-1] = 1<<(n&63) - 1
	}
}

func (s bitset) and(o bitset) {
	for i := range s {
		s[i] &= o[i]
	}
}

func (s bitset) or(o bitset) {
	for i := range s {
		s[i] |= o[i]
	}
}

func (s bitset) andNot(o bitset) {
	for i := range s {
		s[i] &^= o[i]
	}
}

func (s bitset) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

func (s bitset) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// next is the first member from i on, or -1.
func (s bitset) next(i int) int {
	for w := i >> 6; w < len(s); w++ {
		x := s[w]
		if w == i>>6 {
			x &= ^uint64(0) << (i & 63)
		}
		if x != 0 {
			return w<<6 + bits.TrailingZeros64(x)
		}
	}
	return -1
}

// put writes the n members of part, which starts at 0, to [from, from+n).
func (s bitset) put(part bitset, from, n int) {
	for i := range n {
		if part.has(i) {
			s.set(from + i)
		} else {
			s.clear(from + i)
		}
	}
}

// slice copies members [from, from+n) to a set that starts at 0.
func (s bitset) slice(from, n int) bitset {
	out := newBitset(n)
	shift := from & 63
	for i := range out {
		w := from>>6 + i
		x := s[w] >> shift
		if shift != 0 && w+1 < len(s) {
			x |= s[w+1] << (64 - shift)
		}
		out[i] = x
	}
	if n&63 != 0 {
		out[len(out)-1] &= 1<<(n&63) - 1
	}
	return out
}
