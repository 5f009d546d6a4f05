package logstore

import (
	"context"
	"database/sql/driver"
	"slices"
)

// maxMinis is how many appends a day may hold one by one. A trickle of lines
// is merged to fewer, so that a query reads few pieces.
const maxMinis = 256

// queue asks the sealer to look at a day that has enough rows. Its caller has
// the turn.
func (s *Store) queue(d *day) {
	if d.queued || d.headRows < s.chunkRows && d.headBytes < segmentBytes && len(d.head) < maxMinis {
		return
	}
	select {
	case s.work <- d:
		d.queued = true
	default: // the next append asks again
	}
}

// seal makes segments in the background: what takes long, sorting and indexing,
// is done without the turn.
func (s *Store) seal(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.work:
			err := s.sealDay(ctx, d)
			if err != nil && ctx.Err() == nil {
				s.opt.Log.Warn("rows wait to be indexed", "file", d.path, "error", err)
			}
			s.mu.Lock()
			s.sealErr = err
			close(s.sealed)
			s.sealed = make(chan struct{})
			s.mu.Unlock()
		}
	}
}

func (s *Store) sealDay(ctx context.Context, d *day) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	d.queued = false
	err := s.sealSome(d)
	if err == nil {
		d.merging = true
		_, err = s.mergeSome(d, false)
		d.merging = false
	}
	if err == nil {
		s.queue(d)
	}
	s.pass()
	return err
}

// sealSome turns the oldest rows of a day that wait into a chunk, or a trickle
// into fewer pieces. It is called with the turn, and gives it up while it works.
func (s *Store) sealSome(d *day) error {
	if d.gone.Load() {
		return nil
	}
	if d.headRows < s.chunkRows && d.headBytes < segmentBytes {
		if len(d.head) < maxMinis {
			return nil
		}
		if ok, err := s.mergeMinis(d); ok || err != nil {
			return s.sealFault(d, err)
		}
	}
	_, err := s.index(d)
	return err
}

func (s *Store) sealFault(d *day, err error) error {
	if err != nil && isDamage(err) {
		return s.setAsideLocked(d, err)
	}
	return classify(d.path, err)
}

// collect reads rows and builds their segment.
func (s *Store) collect(d *day, take []miniMeta, merged *segment, keys map[string]int) (b *built, err error) {
	var rows []row
	err = d.read(func(c *conn) error {
		if merged != nil {
			rd, err := newReading(c)
			if err != nil {
				return err
			}
			if rows, err = rd.all(&merged.chunks[0]); err != nil {
				return err
			}
		}
		for _, m := range take {
			part, err := s.rows(d, c, m.no)
			if err != nil {
				return err
			}
			rows = append(rows, part...)
		}
		return nil
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return buildChunk(rows, keys), nil
}

// replace puts a chunk, which is a segment of its own, in the place of what it
// was made of.
func (s *Store) replace(d *day, take []miniMeta, old *segment, b *built) error {
	keys := d.keys
	err := d.w.tx(func() error {
		for _, m := range take {
			if err := d.w.run("DELETE FROM mini WHERE no=?", m.no); err != nil {
				return err
			}
		}
		if old != nil {
			if err := leaveSegment(d.w, old.no); err != nil {
				return err
			}
		}
		if b == nil {
			return nil
		}
		var err error
		if keys, err = s.insertBuilt(d, keys, b, d.nextNo); err != nil {
			return err
		}
		if err := insertLeaves(d.w, d.nextNo, 0, b.leaves); err != nil {
			return err
		}
		if err := enterSegment(d.w, newSegment(d.nextNo, []chunk{b.chunk}), b.leaves, []string{b.zone}); err != nil {
			return err
		}
		return d.w.run("UPDATE next SET no=?", d.nextNo+1)
	})
	if err != nil {
		return err
	}
	if b != nil {
		d.nextNo, d.keys = d.nextNo+1, keys
	}
	d.joined = false
	if old != nil {
		d.discard(parts{[]int64{old.lexicon}, []int64{old.chunks[0].no}})
	}
	for _, m := range take {
		s.cache.drop(d, m.no)
		d.headRows -= m.rows
		d.headBytes -= m.bytes
	}
	d.head = slices.Clone(d.head[len(take):])
	return nil
}

// insertBuilt writes a chunk under a number, with the columns of fields that
// are new. It gives all that are known then.
func (s *Store) insertBuilt(d *day, known map[string]int, b *built, no int64) (map[string]int, error) {
	b.no = no
	keys := addKeys(known, b.keys)
	if len(keys) > len(known) {
		for name, col := range b.keys {
			if err := d.w.run("INSERT OR IGNORE INTO key (col, name) VALUES (?, ?)", int64(col), name); err != nil {
				return nil, err
			}
		}
	}
	return keys, insertChunk(d.w, b)
}

func addKeys(known, more map[string]int) map[string]int {
	out := known
	for name, col := range more {
		if _, ok := known[name]; ok {
			continue
		}
		if len(out) == len(known) {
			out = make(map[string]int, len(known)+len(more)) // the old one may be in use by a builder
			for k, v := range known {
				out[k] = v
			}
		}
		out[name] = col
	}
	return out
}

// lastSmall is the newest segment when it is one chunk with room for n rows
// more: late lines must not leave a trail of tiny ones.
func (s *Store) lastSmall(d *day, n int) (*segment, error) {
	var last *segment
	if _, err := s.writer(d.date); err != nil {
		return nil, err
	}
	err := d.w.each(segmentQuery+" ORDER BY no DESC LIMIT 1", func(r []driver.Value) (err error) {
		last, err = readSegment(r)
		return err
	})
	if err != nil || last == nil || len(last.chunks) > 1 || last.n+n > s.chunkRows || last.chunks[0].blocks != nil {
		return nil, err
	}
	return last, nil
}

// mergeMinis joins the newest minis of a day to one, unless few would be.
func (s *Store) mergeMinis(d *day) (ok bool, err error) {
	if _, err := s.writer(d.date); err != nil {
		return false, err
	}
	from, n, bytes := len(d.head), 0, 0
	for from > 0 && n+d.head[from-1].rows <= miniRows && bytes+d.head[from-1].bytes <= miniBytes {
		from--
		n += d.head[from].rows
		bytes += d.head[from].bytes
	}
	take := d.head[from:]
	if len(take) < maxMinis/2 {
		return false, nil
	}
	m := miniMeta{no: d.nextNo, tmin: maxMicro, tmax: minMicro, rows: n, bytes: bytes}
	rows := make([]row, 0, n)
	for _, t := range take {
		part, err := s.rows(d, d.w, t.no)
		if err != nil {
			return false, err
		}
		rows = append(rows, part...)
		m.tmin, m.tmax, m.levels = min(m.tmin, t.tmin), max(m.tmax, t.tmax), m.levels|t.levels
	}
	err = d.w.tx(func() error {
		for _, t := range take {
			if err := d.w.run("DELETE FROM mini WHERE no=?", t.no); err != nil {
				return err
			}
		}
		if err := insertMini(d.w, m, encodeMini(rows)); err != nil {
			return err
		}
		return d.w.run("UPDATE next SET no=?", m.no+1)
	})
	if err != nil {
		return false, err
	}
	d.nextNo++
	for _, t := range take {
		s.cache.drop(d, t.no)
	}
	d.head = append(slices.Clone(d.head[:from]), m)
	s.cache.put(d, m.no, rows, bytes)
	return true, nil
}

// Settle waits until every full segment is made and indexed.
func (s *Store) Settle(ctx context.Context) error {
	for {
		if err := s.take(ctx); err != nil {
			return err
		}
		var waiting *day
		for _, d := range s.dayList(minMicro, maxMicro) {
			s.queue(d)
			if d.queued || d.merging {
				waiting = d
			}
		}
		s.mu.Lock()
		sealed, err := s.sealed, s.sealErr
		s.mu.Unlock()
		s.pass()
		if waiting == nil || err != nil {
			return err
		}
		select {
		case <-sealed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
