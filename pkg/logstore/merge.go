package logstore

import (
	"bytes"
	"container/heap"
	"database/sql/driver"
	"errors"
	"slices"
)

// mergeBytes bounds the lexicons that are merged at once, which is done in
// memory.
const mergeBytes = 16 << 20

// source is a lexicon that becomes part of another.
type source struct {
	leaves [][]byte
	place  []int // of its chunks in the new segment, -1: not in it
	order  int

	r     reader
	token []byte
	body  string
}

// next goes to the next token. ok is false after the last one.
func (s *source) next() (ok bool, err error) {
	for s.r.left() == 0 {
		if len(s.leaves) == 0 {
			return false, nil
		}
		body, err := openFrame(s.leaves[0])
		if err != nil {
			return false, err
		}
		s.r, s.leaves, s.token = reader{b: body}, s.leaves[1:], s.token[:0]
	}
	shared := int(s.r.byte())
	suffix := s.r.string()
	s.body = s.r.string()
	if s.r.bad || shared > len(s.token) {
		return false, errDamaged
	}
	s.token = append(s.token[:shared], suffix...)
	return true, nil
}

type sources []*source

func (s sources) Len() int { return len(s) }
func (s sources) Less(i, j int) bool {
	c := bytes.Compare(s[i].token, s[j].token)
	return c < 0 || c == 0 && s[i].order < s[j].order
}
func (s sources) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sources) Push(x any)   { *s = append(*s, x.(*source)) }
func (s *sources) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// mergeLexicons puts postings of equal tokens after one another as they are: a
// posting is about its own chunk only.
func mergeLexicons(from []*source) ([]leaf, error) {
	var queue sources
	for i, s := range from {
		s.order = i
		ok, err := s.next()
		if err != nil {
			return nil, err
		}
		if ok {
			queue = append(queue, s)
		}
	}
	heap.Init(&queue)
	var w leafWriter
	var token, body []byte
	for len(queue) > 0 {
		token, body = append(token[:0], queue[0].token...), body[:0]
		for len(queue) > 0 && bytes.Equal(queue[0].token, token) {
			s := queue[0]
			err := eachPosting(s.body, func(chunk int, posting string) error {
				if chunk >= len(s.place) {
					return errDamaged
				}
				if s.place[chunk] >= 0 {
					body = append(append(body, byte(s.place[chunk])), posting...)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			ok, err := s.next()
			switch {
			case err != nil:
				return nil, err
			case ok:
				heap.Fix(&queue, 0)
			default:
				heap.Pop(&queue)
			}
		}
		if len(body) > 0 {
			w.add(token, body)
		}
	}
	return w.end(), nil
}

// lexicon reads all leaves of a segment.
func (c *conn) lexicon(seg *segment) (out [][]byte, err error) {
	err = c.each("SELECT data FROM leaf WHERE id>=? AND id<?", func(r []driver.Value) error {
		b, ok := r[0].([]byte)
		if !ok {
			return errDamaged
		}
		out = append(out, b)
		return nil
	}, leafID(seg.lexicon, 0), leafID(seg.lexicon+1, 0))
	return out, err
}

// joined is a segment made of others, ready to be written.
type joined struct {
	chunks []chunk
	leaves []leaf
	zones  []string
}

// join makes one segment of the chunks of several, except those of gone, and of
// chunks that are not in the file yet.
func (c *conn) join(segs []*segment, gone map[int64]bool, fresh []*built) (*joined, error) {
	j := &joined{}
	var from []*source
	for _, seg := range segs {
		leaves, err := c.lexicon(seg)
		if err != nil {
			return nil, err
		}
		zones, err := c.segmentZones(seg)
		if err != nil {
			return nil, err
		}
		s := &source{leaves: leaves, place: make([]int, len(seg.chunks))}
		for i := range seg.chunks {
			s.place[i] = -1
			if !gone[seg.chunks[i].no] {
				s.place[i] = len(j.chunks)
				j.chunks = append(j.chunks, seg.chunks[i])
				j.zones = append(j.zones, zones[i])
			}
		}
		from = append(from, s)
	}
	for _, b := range fresh {
		leaves := make([][]byte, len(b.leaves))
		for i := range b.leaves {
			leaves[i] = b.leaves[i].data
		}
		from = append(from, &source{leaves: leaves, place: []int{len(j.chunks)}})
		j.chunks = append(j.chunks, b.chunk)
		j.zones = append(j.zones, b.zone)
	}
	var err error
	j.leaves, err = mergeLexicons(from)
	return j, err
}

// mergeSome makes one segment of the oldest ones that have room, when there are
// enough of them; with all, of however many there are. It is called with the
// turn, and gives it up while it works. more tells that something was there to
// do.
func (s *Store) mergeSome(d *day, all bool) (more bool, err error) {
	if d.gone.Load() {
		return false, nil
	}
	if _, err := s.writer(d.date); err != nil {
		return false, s.sealFault(d, err)
	}
	if ok, err := s.tidy(d); !ok || err != nil {
		return false, s.sealFault(d, err)
	}
	segs, err := d.mergeable(s.chunkRows/2, all)
	if err != nil || len(segs) < 2 {
		return false, s.sealFault(d, err)
	}
	s.pass()
	var j *joined
	err = d.read(func(c *conn) error {
		j, err = c.join(segs, nil, nil)
		return err
	})
	<-s.turn
	if errors.Is(err, errGone) || s.closed || d.gone.Load() {
		return false, nil
	}
	if err != nil && !isDamage(err) {
		return false, classify(d.path, err)
	}
	if _, err := s.writer(d.date); err != nil {
		return false, s.sealFault(d, err)
	}
	if err != nil {
		return false, s.sealFault(d, err)
	}
	_, err = s.exchange(d, segs, nil, nil, j)
	return true, s.sealFault(d, err)
}

// mergeable gives segments that are to become one. The last chunk of a day is
// left out while it has fewer rows than small: what is late will be added to it.
func (d *day) mergeable(small int, all bool) (out []*segment, err error) {
	var list []*segment
	err = d.w.each(segmentQuery+" ORDER BY no", func(r []driver.Value) error {
		seg, err := readSegment(r)
		if err == nil && len(seg.chunks) < mergeChunks {
			list = append(list, seg)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if n := len(list); n > 0 && len(list[n-1].chunks) == 1 && list[n-1].n < small {
		list = list[:n-1]
	}
	// Oldest rows first: a segment of neighbours is asked for fewer periods.
	slices.SortStableFunc(list, func(a, b *segment) int { return int(min(max(a.tmin-b.tmin, -1), 1)) })
	chunks, bytes := 0, 0
	for _, seg := range list {
		if chunks+len(seg.chunks) > mergeChunks || len(out) > 0 && bytes+seg.bytes > mergeBytes {
			if len(out) > 1 {
				return out, nil
			}
			out, chunks, bytes = nil, 0, 0
		}
		out = append(out, seg)
		chunks += len(seg.chunks)
		bytes += seg.bytes
	}
	if !all && chunks < mergeChunks {
		return nil, nil
	}
	return out, nil
}
