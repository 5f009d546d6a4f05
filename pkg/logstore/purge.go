package logstore

import (
	"context"
	"slices"

	"vpnd/pkg/fault"
	"vpnd/pkg/logquery"
)

// DayCount is a number of records of one day.
type DayCount struct {
	Day  Day
	Rows int64
}

// Purge removes what matches, or with dry only counts it, and gives the number
// for each day that has any. A query without any condition is refused. When it
// fails, the days before the failing one are done and in the answer.
func (s *Store) Purge(ctx context.Context, q logquery.Query, dry bool) ([]DayCount, error) {
	if len(q.Terms) == 0 && q.Since.IsZero() && q.Until.IsZero() {
		return nil, fault.InvalidField("query", "an empty query would remove every record").
			WithReason("empty_query").WithHint("say which: service=…, until=…")
	}
	p := newPlan(q)
	var out []DayCount
	for _, d := range s.dayList(p.since, p.until) {
		n := int64(0)
		var err error
		if dry {
			part := counts{}
			_, err = s.readDay(ctx, d, func(c *conn) error {
				sc, err := s.newScan(ctx, d, c, p)
				if err != nil {
					return err
				}
				return sc.count(grouping{}, part)
			})
			for _, c := range part {
				n += *c
			}
		} else {
			n, err = s.purgeDay(ctx, d, p)
		}
		if n > 0 {
			out = append(out, DayCount{d.date, n})
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// purgeDay rewrites the pieces that have such rows, one at a time, so that
// appends go on in between.
func (s *Store) purgeDay(ctx context.Context, d *day, p *plan) (int64, error) {
	total := int64(0)
	for done := false; !done; {
		if err := s.take(ctx); err != nil {
			return total, err
		}
		n, err := int64(0), error(nil)
		n, done, err = s.purgeStep(ctx, d, p)
		total += n
		if err == nil && done {
			err = s.removeEmpty(ctx, d)
		}
		if err != nil {
			if isDamage(err) {
				err = s.setAsideLocked(d, err)
				done = true
			} else if ctx.Err() == nil {
				err = classify(d.path, err)
			}
		}
		s.pass()
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// purgeStep finds the first piece with matching rows and puts the rest of its
// rows in its place.
func (s *Store) purgeStep(ctx context.Context, d *day, p *plan) (n int64, done bool, err error) {
	if d.gone.Load() {
		return 0, true, nil
	}
	if _, err := s.writer(d.date); err != nil {
		return 0, false, err
	}
	sc, err := s.newScan(ctx, d, d.w, p)
	if err != nil {
		return 0, false, err
	}
	minis, err := sc.minis()
	if err != nil {
		return 0, false, err
	}
	for _, m := range minis {
		if n, err := s.purgeMini(sc, m); n > 0 || err != nil {
			return n, false, err
		}
	}
	segs, err := sc.segments()
	if err != nil {
		return 0, false, err
	}
	for _, seg := range segs {
		if n, err := s.purgeSegment(sc, seg); n > 0 || err != nil {
			return n, false, err
		}
	}
	return 0, true, nil
}

func (s *Store) purgeMini(sc *scan, m miniMeta) (int64, error) {
	drop := map[int64]bool{}
	if err := sc.found(m, func(r *row) error { drop[r.id.Seq] = true; return nil }); err != nil || len(drop) == 0 {
		return 0, err
	}
	all, err := s.rows(sc.d, sc.c, m.no)
	if err != nil {
		return 0, err
	}
	rows := slices.DeleteFunc(slices.Clone(all), func(r row) bool { return drop[r.id.Seq] })
	d := sc.d
	at := slices.IndexFunc(d.head, func(o miniMeta) bool { return o.no == m.no })
	if at < 0 {
		return 0, errDamaged
	}
	left := miniMeta{no: d.nextNo, tmin: maxMicro, tmax: minMicro, rows: len(rows)}
	for i := range rows {
		left.tmin, left.tmax = min(left.tmin, rows[i].id.Time), max(left.tmax, rows[i].id.Time)
		left.levels |= 1 << rows[i].rec.Level
		left.bytes += rowSize(&rows[i].rec)
	}
	err = d.w.tx(func() error {
		if err := d.w.run("DELETE FROM mini WHERE no=?", m.no); err != nil {
			return err
		}
		if left.rows > 0 {
			if err := insertMini(d.w, left, encodeMini(rows)); err != nil {
				return err
			}
		}
		return d.w.run("UPDATE next SET no=?", d.nextNo+1)
	})
	if err != nil {
		return 0, err
	}
	s.cache.drop(d, m.no)
	d.nextNo++
	d.headRows += left.rows - d.head[at].rows
	d.headBytes += left.bytes - d.head[at].bytes
	d.head = slices.Delete(slices.Clone(d.head), at, at+1)
	if left.rows > 0 {
		// At the end: its number is the highest now. Pages go by time and arrival.
		d.head = append(d.head, left)
	}
	return int64(len(drop)), nil
}

func (s *Store) purgeSegment(sc *scan, seg *segment) (int64, error) {
	cand, none, err := sc.candidates(seg)
	if err != nil || none {
		return 0, err
	}
	drop := newBitset(seg.n)
	for i := range seg.blocks {
		b := openBlock(sc.c, sc.keys, seg, i)
		set, err := sc.matching(b, cand)
		if err != nil {
			return 0, err
		}
		for k := set.next(0); k >= 0; k = set.next(k + 1) {
			drop.set(b.meta.start + k)
		}
	}
	if drop.empty() {
		return 0, nil
	}
	var left *built
	if n := drop.count(); n < seg.n {
		rows, err := s.segmentRows(sc.c, seg)
		if err != nil {
			return 0, err
		}
		i := -1
		rows = slices.DeleteFunc(rows, func(row) bool { i++; return drop.has(i) })
		left = buildSegment(rows, sc.d.keys)
	}
	return int64(drop.count()), s.replace(sc.d, nil, seg, left)
}

// removeEmpty removes a day's file when nothing is left in it.
func (s *Store) removeEmpty(ctx context.Context, d *day) error {
	if d.gone.Load() || d.w == nil || len(d.head) > 0 {
		return nil
	}
	b, err := d.w.blob("SELECT blocks FROM segment LIMIT 1")
	if err != nil || b != nil {
		return err
	}
	return s.removeDay(ctx, d)
}
