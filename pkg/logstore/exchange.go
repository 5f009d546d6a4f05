package logstore

import (
	"database/sql/driver"
	"maps"
	"slices"
)

// What is written of a lexicon at once, and how many leaves: others wait no longer
// for their turn.
const (
	layBytes  = 256 << 10
	layLeaves = 256
)

// parts are in a day's file though no segment names them: of one that is being
// made, or of one that was replaced.
type parts struct{ lexicons, chunks []int64 }

// discard notes parts that are to be removed. Until they are, the day counts as
// one that has something to join, so that it is come back to.
func (d *day) discard(p parts) {
	d.litter.lexicons = append(d.litter.lexicons, p.lexicons...)
	d.litter.chunks = append(d.litter.chunks, p.chunks...)
	d.joined = false
}

// exchange puts a joined segment in the place of those that it was made of. gone
// are the chunks that are not in it, fresh those that are not in the file yet.
// All of them are megabytes, so they are written and removed in small pieces: the
// new ones before the segment is entered, the old ones after it. done is false
// when nothing was exchanged, since the segments were replaced meanwhile or the
// day is gone. The caller has the turn, which is given up in between.
func (s *Store) exchange(d *day, segs []*segment, gone map[int64]bool, fresh []*built, j *joined) (done bool, err error) {
	if ok, err := s.tidy(d); !ok || err != nil {
		return false, err
	}
	laid, ok, err := s.lay(d, fresh, j)
	for _, seg := range segs {
		if ok && err == nil {
			ok, err = s.unchanged(d, nil, seg)
		}
	}
	if !ok || err != nil {
		d.discard(laid)
		return false, err
	}
	no := d.nextNo
	err = d.w.tx(func() error {
		for _, seg := range segs {
			if err := leaveSegment(d.w, seg.no); err != nil {
				return err
			}
		}
		if len(j.chunks) > 0 {
			seg := newSegment(no, j.chunks)
			seg.lexicon = laid.lexicons[0]
			if err := enterSegment(d.w, seg, j.leaves, j.zones); err != nil {
				return err
			}
		}
		return d.w.run("UPDATE next SET no=?", no+1)
	})
	if err != nil {
		d.discard(laid)
		return false, err
	}
	d.nextNo = no + 1
	old := parts{chunks: slices.Collect(maps.Keys(gone))}
	for _, seg := range segs {
		old.lexicons = append(old.lexicons, seg.lexicon)
	}
	d.discard(old)
	_, err = s.tidy(d)
	return true, err
}

// lay writes what a joined segment is made of. Numbers are taken now that later
// rows do not get.
func (s *Store) lay(d *day, fresh []*built, j *joined) (laid parts, ok bool, err error) {
	for i, b := range fresh {
		no, keys := d.nextNo, d.keys
		err := d.w.tx(func() (err error) {
			if keys, err = s.insertBuilt(d, keys, b, no); err != nil {
				return err
			}
			return d.w.run("UPDATE next SET no=?", no+1)
		})
		if err != nil {
			return laid, false, err
		}
		d.nextNo, d.keys = no+1, keys
		j.chunks[len(j.chunks)-len(fresh)+i].no = no
		laid.chunks = append(laid.chunks, no)
		for _, data := range b.rows {
			d.toCopy += len(data)
		}
		if ok, err := s.yield(d); !ok || err != nil {
			return laid, ok, err
		}
	}
	if len(j.chunks) == 0 {
		return laid, true, nil
	}
	lexicon := d.nextNo
	if err := d.w.run("UPDATE next SET no=?", lexicon+1); err != nil {
		return laid, false, err
	}
	d.nextNo = lexicon + 1
	laid.lexicons = []int64{lexicon}
	for from := 0; from < len(j.leaves); {
		to, size := from, 0
		for to < len(j.leaves) && to-from < s.layLeaves && size < layBytes {
			size += len(j.leaves[to].data)
			to++
		}
		if err := d.w.tx(func() error { return insertLeaves(d.w, lexicon, from, j.leaves[from:to]) }); err != nil {
			return laid, false, err
		}
		from = to
		d.toCopy += size
		if ok, err := s.yield(d); !ok || err != nil {
			return laid, ok, err
		}
	}
	return laid, true, nil
}

// tidy removes what no segment names. What it does not come to, as on a full disk,
// is left for the next time. ok is false when the day is gone.
func (s *Store) tidy(d *day) (ok bool, err error) {
	for len(d.litter.lexicons) > 0 {
		no, left := d.litter.lexicons[0], false
		err := d.w.tx(func() (err error) {
			left, err = dropLeaves(d.w, no, s.layLeaves)
			return err
		})
		if err != nil {
			return false, err
		}
		if !left {
			d.litter.lexicons = d.litter.lexicons[1:]
		}
		if ok, err := s.yield(d); !ok || err != nil {
			return ok, err
		}
	}
	for len(d.litter.chunks) > 0 {
		no := d.litter.chunks[0]
		if err := d.w.tx(func() error { return dropChunk(d.w, no) }); err != nil {
			return false, err
		}
		d.litter.chunks = d.litter.chunks[1:]
		if ok, err := s.yield(d); !ok || err != nil {
			return ok, err
		}
	}
	return true, nil
}

// yield lets others have the turn. ok is false when the day is gone then.
func (s *Store) yield(d *day) (ok bool, err error) {
	s.nudge()
	s.pass()
	<-s.turn
	if s.closed || d.gone.Load() {
		return false, nil
	}
	_, err = s.writer(d.date)
	return err == nil, err
}

// findLitter finds what a killed process was about to enter, or to remove.
func (d *day) findLitter() error {
	named := parts{}
	err := d.w.each(segmentQuery, func(r []driver.Value) error {
		seg, err := readSegment(r)
		if err != nil {
			return err
		}
		named.lexicons = append(named.lexicons, seg.lexicon)
		for i := range seg.chunks {
			named.chunks = append(named.chunks, seg.chunks[i].no)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if d.litter.lexicons, err = d.unnamed("leaf", leafID, named.lexicons); err != nil {
		return err
	}
	d.litter.chunks, err = d.unnamed("block", blockID, named.chunks)
	return err
}

// unnamed goes from number to number in a table whose ids begin with them.
func (d *day) unnamed(table string, id func(int64, int) int64, named []int64) (out []int64, err error) {
	width := id(1, 0)
	for at := int64(0); ; {
		found := int64(-1)
		err := d.w.each("SELECT id FROM "+table+" WHERE id>=? ORDER BY id LIMIT 1", func(r []driver.Value) error {
			found = integer(r[0]) / width
			return nil
		}, at)
		if err != nil || found < 0 {
			return out, err
		}
		if !slices.Contains(named, found) {
			out = append(out, found)
		}
		at = id(found+1, 0)
	}
}
