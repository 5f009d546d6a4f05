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
	if d.queued || d.headRows < segmentRows && d.headBytes < segmentBytes && len(d.head) < maxMinis {
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
	err := s.sealSome(d, false)
	if err == nil {
		s.queue(d)
	}
	s.pass()
	return err
}

// sealSome turns the oldest rows of a day that wait into a segment, or a
// trickle into fewer pieces. With all it takes them however few they are. It is
// called with the turn, and gives it up while it works unless all is set.
func (s *Store) sealSome(d *day, all bool) error {
	if d.gone.Load() {
		return nil
	}
	var take []miniMeta
	rows, bytes := 0, 0
	for _, m := range d.head {
		if rows >= segmentRows || bytes >= segmentBytes {
			break
		}
		take = append(take, m)
		rows += m.rows
		bytes += m.bytes
	}
	full := rows >= segmentRows || bytes >= segmentBytes
	switch {
	case len(take) == 0:
		return nil
	case !full && !all && len(d.head) >= maxMinis:
		if ok, err := s.merge(d); ok || err != nil {
			return s.sealFault(d, err)
		}
		all = true
	case !full && !all:
		return nil
	}
	var merged *segment
	if !full {
		var err error
		if merged, err = s.lastSmall(d, rows); err != nil {
			return classify(d.path, err)
		}
	}
	keys := d.keys
	if !all {
		s.pass()
	}
	b, err := s.collect(d, take, merged, keys)
	if !all {
		<-s.turn
	}
	if err != nil {
		return s.sealFault(d, err)
	}
	// While the turn was away a purge may have rewritten what was taken.
	for i, m := range take {
		if s.closed || d.gone.Load() || i >= len(d.head) || d.head[i].no != m.no {
			return nil
		}
	}
	if _, err := s.writer(d.date); err != nil {
		return s.sealFault(d, err)
	}
	return s.sealFault(d, s.replace(d, take, merged, b))
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
			if rows, err = s.segmentRows(c, merged); err != nil {
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
	return buildSegment(rows, keys), nil
}

// replace puts a segment in the place of what it was made of.
func (s *Store) replace(d *day, take []miniMeta, old *segment, b *built) error {
	no, keys := d.nextNo, d.keys
	err := d.w.tx(func() error {
		for _, m := range take {
			if err := d.w.run("DELETE FROM mini WHERE no=?", m.no); err != nil {
				return err
			}
		}
		if old != nil {
			if err := dropSegment(d.w, old.no); err != nil {
				return err
			}
		}
		if b == nil {
			return nil
		}
		b.no = no
		if keys = addKeys(d.keys, b.keys); len(keys) > len(d.keys) {
			for name, col := range b.keys {
				if err := d.w.run("INSERT OR IGNORE INTO key (col, name) VALUES (?, ?)", int64(col), name); err != nil {
					return err
				}
			}
		}
		if err := insertSegment(d.w, b); err != nil {
			return err
		}
		return d.w.run("UPDATE next SET no=?", no+1)
	})
	if err != nil {
		return err
	}
	d.nextNo, d.keys = no+1, keys
	for _, m := range take {
		s.cache.drop(d, m.no)
		d.headRows -= m.rows
		d.headBytes -= m.bytes
	}
	d.head = slices.Clone(d.head[len(take):])
	return nil
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

func insertSegment(c *conn, b *built) error {
	if err := c.run("INSERT INTO segment (no, rows, tmin, tmax, levels, blocks) VALUES (?, ?, ?, ?, ?, ?)",
		b.no, int64(b.n), b.tmin, b.tmax, int64(b.levels), encodeBlocks(b.blocks)); err != nil {
		return err
	}
	slices.SortFunc(b.cols, func(x, y colBlob) int {
		return int(columnID(0, x.col, x.block) - columnID(0, y.col, y.block))
	})
	for _, col := range b.cols {
		if err := c.run("INSERT INTO col (id, data) VALUES (?, ?)", columnID(b.no, col.col, col.block), col.data); err != nil {
			return err
		}
	}
	for _, l := range b.leaves {
		if err := c.run("INSERT INTO leaf (segment, first, data) VALUES (?, ?, ?)", b.no, []byte(l.first), l.data); err != nil {
			return err
		}
	}
	if b.rollup == nil {
		return nil
	}
	return c.run("INSERT INTO rollup (segment, data) VALUES (?, ?)", b.no, b.rollup)
}

func dropSegment(c *conn, no int64) error {
	for _, query := range []string{"DELETE FROM segment WHERE no=?", "DELETE FROM leaf WHERE segment=?", "DELETE FROM rollup WHERE segment=?"} {
		if err := c.run(query, no); err != nil {
			return err
		}
	}
	return c.run("DELETE FROM col WHERE id>=? AND id<?", columnID(no, 0, 0), columnID(no+1, 0, 0))
}

// lastSmall is the newest segment when it has room for n rows more: late lines
// must not leave a trail of tiny segments.
func (s *Store) lastSmall(d *day, n int) (*segment, error) {
	var last *segment
	if _, err := s.writer(d.date); err != nil {
		return nil, err
	}
	err := d.w.each(segmentQuery+" ORDER BY no DESC LIMIT 1", func(r []driver.Value) (err error) {
		last, err = readSegment(r)
		return err
	})
	if err != nil || last == nil || last.n+n > segmentRows || len(last.blocks) >= segmentRows/blockRows {
		return nil, err
	}
	return last, nil
}

// merge joins the newest minis of a day to one, unless few would be.
func (s *Store) merge(d *day) (ok bool, err error) {
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
			if d.queued {
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
