package logstore

import (
	"context"
	"errors"

	"vpnd/pkg/fault"
)

// finish makes segments of the rest of a day that has passed, and few of those.
func (s *Store) finish(ctx context.Context, d *day) error {
	for range maxMinis {
		if err := s.take(ctx); err != nil {
			return err
		}
		if d.gone.Load() || d.settled() {
			s.pass()
			return nil
		}
		more, err := s.index(d)
		if !more && err == nil {
			more, err = s.mergeSome(d, true)
			d.joined = !more && err == nil
		}
		s.pass()
		if err != nil || !more {
			return err
		}
	}
	return fault.New(fault.Internal, "rows of %s are not made a segment", d.path)
}

// settled tells, without opening it, that no row of a day waits and that its
// segments are joined.
func (d *day) settled() bool { return d.w == nil && d.loaded && len(d.head) == 0 && d.joined }

// index makes a chunk of the oldest rows that wait, however few they are. It
// is called with the turn, and gives it up while it works. more tells that
// something was there to do; when the rows went elsewhere meanwhile, nothing
// was done.
func (s *Store) index(d *day) (more bool, err error) {
	if _, err := s.writer(d.date); err != nil {
		return false, s.sealFault(d, err)
	}
	var take []miniMeta
	rows, bytes := 0, 0
	for _, m := range d.head {
		if rows >= s.chunkRows || bytes >= segmentBytes {
			break
		}
		take = append(take, m)
		rows += m.rows
		bytes += m.bytes
	}
	if len(take) == 0 {
		return false, nil
	}
	var merged *segment
	if rows < s.chunkRows && bytes < segmentBytes {
		if merged, err = s.lastSmall(d, rows); err != nil {
			return false, s.sealFault(d, err)
		}
	}
	keys := d.keys
	s.pass()
	b, err := s.collect(d, take, merged, keys)
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
	if same, err2 := s.unchanged(d, take, merged); err2 != nil || !same {
		return true, s.sealFault(d, err2)
	}
	if err != nil {
		return false, s.sealFault(d, err)
	}
	return true, s.sealFault(d, s.replace(d, take, merged, b))
}

// unchanged tells whether pieces are still what they were before the turn was
// given up: numbers are never used again.
func (s *Store) unchanged(d *day, take []miniMeta, seg *segment) (bool, error) {
	for i, m := range take {
		if i >= len(d.head) || d.head[i].no != m.no {
			return false, nil
		}
	}
	if seg == nil {
		return true, nil
	}
	return d.w.has("SELECT 1 FROM segment WHERE no=?", seg.no)
}
