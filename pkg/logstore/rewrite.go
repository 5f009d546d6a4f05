package logstore

import (
	"context"
	"slices"
)

// change is a piece without the rows that match.
type change struct {
	mini miniMeta // or
	seg  *segment
	drop int64
	rows []row // of a mini

	gone   map[int64]bool // of a segment: chunks that are rewritten,
	left   []*built       // what is left of them,
	joined *joined        // and the segment then
}

// piece takes the rows that match out of one piece.
func (r *purgeRound) piece(ctx context.Context, ch change, keys map[string]int) error {
	if _, err := r.s.readDay(ctx, r.d, func(c *conn) error { return r.look(ctx, c, &ch, keys) }); err != nil || ch.drop == 0 {
		return err
	}
	if err := r.s.take(ctx); err != nil {
		return err
	}
	defer r.s.pass()
	if r.d.gone.Load() {
		return nil
	}
	if _, err := r.s.writer(r.d.date); err != nil {
		return r.s.sealFault(r.d, err)
	}
	done, err := r.s.put(r.d, ch)
	if done {
		r.removed += ch.drop
	}
	return r.s.sealFault(r.d, err)
}

// look finds what a piece is to become.
func (r *purgeRound) look(ctx context.Context, c *conn, ch *change, keys map[string]int) error {
	sc, err := r.s.newScan(ctx, r.d, c, r.p)
	if err != nil {
		return err
	}
	query, no := "SELECT 1 FROM mini WHERE no=?", ch.mini.no
	if ch.seg != nil {
		query, no = "SELECT 1 FROM segment WHERE no=?", ch.seg.no
	}
	if ok, err := c.has(query, no); err != nil || !ok {
		return err // its rows are somewhere else by now
	}
	if ch.seg == nil {
		return r.lookMini(sc, ch)
	}
	return r.lookSegment(sc, ch, keys)
}

func (r *purgeRound) lookMini(sc *scan, ch *change) error {
	drop := map[int64]bool{}
	if err := sc.inMini(ch.mini, func(r *row) error { drop[r.id.Seq] = true; return nil }); err != nil || len(drop) == 0 {
		return err
	}
	all, err := r.s.rows(r.d, sc.c, ch.mini.no)
	if err != nil {
		return err
	}
	ch.drop = int64(len(drop))
	ch.rows = slices.DeleteFunc(slices.Clone(all), func(r row) bool { return drop[r.id.Seq] })
	return nil
}

// lookSegment rewrites those chunks of a segment that have such rows, and the
// lexicon, which must not keep words of what is gone.
func (r *purgeRound) lookSegment(sc *scan, ch *change, keys map[string]int) error {
	ch.gone = map[int64]bool{}
	for i := range ch.seg.chunks {
		chunk := &ch.seg.chunks[i]
		if ch.seg.mask&(1<<i) == 0 {
			continue
		}
		drop, err := sc.rows(chunk)
		if err != nil {
			return err
		}
		if drop == nil {
			continue
		}
		n := drop.count()
		ch.gone[chunk.no] = true
		ch.drop += int64(n)
		if n == chunk.n {
			continue
		}
		rows, err := sc.all(chunk)
		if err != nil {
			return err
		}
		k := -1
		rows = slices.DeleteFunc(rows, func(row) bool { k++; return drop.has(k) })
		ch.left = append(ch.left, buildChunk(rows, keys))
	}
	if ch.drop == 0 {
		return nil
	}
	var err error
	ch.joined, err = sc.c.join([]*segment{ch.seg}, ch.gone, ch.left)
	return err
}

// put brings a change to the day, unless the piece was replaced meanwhile.
func (s *Store) put(d *day, ch change) (done bool, err error) {
	if ch.seg != nil {
		return s.exchange(d, []*segment{ch.seg}, ch.gone, ch.left, ch.joined)
	}
	at := slices.IndexFunc(d.head, func(o miniMeta) bool { return o.no == ch.mini.no })
	if at < 0 {
		return false, nil
	}
	left := miniMeta{no: d.nextNo, tmin: maxMicro, tmax: minMicro, rows: len(ch.rows)}
	for i := range ch.rows {
		left.tmin, left.tmax = min(left.tmin, ch.rows[i].id.Time), max(left.tmax, ch.rows[i].id.Time)
		left.levels |= 1 << ch.rows[i].rec.Level
		left.bytes += rowSize(&ch.rows[i].rec)
	}
	err = d.w.tx(func() error {
		if err := d.w.run("DELETE FROM mini WHERE no=?", ch.mini.no); err != nil {
			return err
		}
		if left.rows > 0 {
			if err := insertMini(d.w, left, encodeMini(ch.rows)); err != nil {
				return err
			}
		}
		return d.w.run("UPDATE next SET no=?", d.nextNo+1)
	})
	if err != nil {
		return false, err
	}
	s.cache.drop(d, ch.mini.no)
	d.nextNo++
	d.headRows += left.rows - d.head[at].rows
	d.headBytes += left.bytes - d.head[at].bytes
	d.head = slices.Delete(slices.Clone(d.head), at, at+1)
	if left.rows > 0 {
		// At the end: its number is the highest now. Pages go by time and arrival.
		d.head = append(d.head, left)
	}
	return true, nil
}
