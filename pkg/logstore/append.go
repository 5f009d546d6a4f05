package logstore

import (
	"context"
	"database/sql/driver"
	"math"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

const (
	minMicro = math.MinInt64
	maxMicro = math.MaxInt64

	miniRows     = 4096
	miniBytes    = 4 << 20
	maxWriters   = 4               // days open for writing at once
	maxWaiting   = 4 * segmentRows // rows of a day that wait for the sealer before Append waits too
	maxWaitBytes = 3 * segmentBytes
	flushEvery   = time.Second
)

// op is what one append means for one day.
type op struct {
	day     *day
	date    Day
	rows    []row // without Seq
	sources map[FileID]int64
}

// Append is AppendAll of one batch.
func (s *Store) Append(ctx context.Context, b Batch) error { return s.AppendAll(ctx, []Batch{b}) }

// AppendAll takes batches in, each row exactly once however often its bytes are
// brought, and returns when they survive the death of the process. After an
// error the same batches are brought again. A file that was cut short or
// replaced is Forgotten first: rows before its position are taken as known.
func (s *Store) AppendAll(ctx context.Context, batches []Batch) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	if s.pending {
		if err := s.replay(ctx); err != nil {
			return err
		}
	}
	ops, ends, err := s.divide(ctx, batches)
	if err != nil {
		return err
	}
	if err := s.room(ctx, ops); err != nil {
		return err
	}
	switch len(ops) {
	case 0:
	case 1:
		for _, o := range ops {
			err = s.commit(o)
		}
	default:
		err = s.several(ctx, ops, ends)
	}
	if err != nil {
		return err
	}
	for id, pos := range ends {
		f := s.files[id]
		f.dirty = f.dirty || f.pos != pos
		f.pos = pos
	}
	for _, o := range ops {
		s.stats.rows.Add(int64(len(o.rows)))
	}
	if s.opt.Now().Sub(s.flushed) > flushEvery {
		// The days have the positions already; one that cannot be written now is
		// written later.
		if err := s.flush(ctx); err != nil {
			s.opt.Log.Warn("positions are not written yet", "error", err)
		}
	}
	return nil
}

// divide sorts rows that are new into days.
func (s *Store) divide(ctx context.Context, batches []Batch) (map[Day]*op, map[FileID]int64, error) {
	ops := map[Day]*op{}
	ends := map[FileID]int64{}
	for i := range batches {
		b := &batches[i]
		if b.From < 0 || b.To < b.From {
			return nil, nil, fault.InvalidField("batch", "bytes %d to %d of %s are no range", b.From, b.To, b.File.Path)
		}
		pos, ok := ends[b.File]
		if !ok {
			f, err := s.file(ctx, b.File)
			if err != nil {
				return nil, nil, err
			}
			pos = f.pos
		}
		ends[b.File] = max(pos, b.To)
		for k := range b.Rows {
			if b.Rows[k].Offset <= pos {
				continue
			}
			if b.Rows[k].Offset > b.To {
				return nil, nil, fault.InvalidField("batch", "a row of %s ends after the batch", b.File.Path)
			}
			us := b.Rows[k].Record.Time.UnixMicro()
			date := dayOfMicro(us)
			o := ops[date]
			if o == nil {
				o = &op{date: date, sources: map[FileID]int64{}}
				ops[date] = o
			}
			o.rows = append(o.rows, row{ID{Time: us}, b.Rows[k].Record})
			o.sources[b.File] = ends[b.File]
		}
	}
	return ops, ends, nil
}

// file is the entry of a source file, made when it is first seen.
func (s *Store) file(ctx context.Context, id FileID) (*file, error) {
	if f := s.files[id]; f != nil {
		return f, nil
	}
	// Numbers are never used twice, even if state.db is lost: a day may remember
	// an old one.
	f := &file{id: time.Now().UnixNano()}
	for _, o := range s.files {
		f.id = max(f.id, o.id+1)
	}
	err := s.state.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec("INSERT INTO file (id, dev, ino, path, pos) VALUES (?, ?, ?, ?, 0)", f.id, int64(id.Dev), int64(id.Ino), id.Path)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.files[id] = f
	return f, nil
}

// writer gives a day that is open for writing.
func (s *Store) writer(date Day) (*day, error) {
	s.mu.Lock()
	d := s.days[date]
	s.mu.Unlock()
	if d == nil {
		d = &day{date: date, path: s.dayPath(date)}
	}
	if d.w == nil {
		if err := d.openWriter(); err != nil {
			return d, err
		}
		s.mu.Lock()
		s.days[date] = d
		s.mu.Unlock()
	}
	s.forgetWriter(d)
	s.writers = append(s.writers, d)
	if len(s.writers) > maxWriters {
		old := s.writers[0]
		s.writers = s.writers[1:]
		if err := old.closeWriter(); err != nil {
			s.opt.Log.Warn("close a day", "file", old.path, "error", err)
		}
	}
	return d, nil
}

// commit writes an op to its day. A damaged day is set aside, and the rows go
// to a new file.
func (s *Store) commit(o *op) error {
	for attempt := 0; ; attempt++ {
		d, err := s.writer(o.date)
		if err == nil {
			err = s.write(d, o)
		}
		if err == nil {
			o.day = d
			return nil
		}
		if !isDamage(err) || attempt > 0 {
			return classify(d.path, err)
		}
		s.mu.Lock()
		s.days[o.date] = d // also when it was damaged before it could be opened
		s.mu.Unlock()
		if err := s.setAsideLocked(d, err); err != nil {
			return err
		}
	}
}

func (s *Store) write(d *day, o *op) error {
	seq, no := d.nextSeq, d.nextNo
	type piece struct {
		meta miniMeta
		rows []row
	}
	var pieces []piece
	err := d.w.tx(func() error {
		for rest := o.rows; len(rest) > 0; {
			m := miniMeta{no: no, tmin: maxMicro, tmax: minMicro}
			for m.rows < len(rest) && m.rows < miniRows && m.bytes < miniBytes {
				r := &rest[m.rows]
				r.id.Seq = seq
				seq++
				m.tmin, m.tmax = min(m.tmin, r.id.Time), max(m.tmax, r.id.Time)
				m.levels |= 1 << r.rec.Level
				m.bytes += rowSize(&r.rec)
				m.rows++
			}
			if err := insertMini(d.w, m, encodeMini(rest[:m.rows])); err != nil {
				return err
			}
			pieces = append(pieces, piece{m, rest[:m.rows:m.rows]})
			rest = rest[m.rows:]
			no++
		}
		for id, pos := range o.sources {
			err := d.w.run(`INSERT INTO source (id, dev, ino, path, pos) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (id) DO UPDATE SET pos = excluded.pos`, s.files[id].id, int64(id.Dev), int64(id.Ino), id.Path, pos)
			if err != nil {
				return err
			}
		}
		return d.w.run("UPDATE next SET seq=?, no=?", seq, no)
	})
	if err != nil {
		return err
	}
	d.nextSeq, d.nextNo = seq, no
	for _, p := range pieces {
		d.head = append(d.head, p.meta)
		d.headRows += p.meta.rows
		d.headBytes += p.meta.bytes
		s.cache.put(d, p.meta.no, p.rows, p.meta.bytes)
	}
	s.queue(d)
	return nil
}

func insertMini(c *conn, m miniMeta, data []byte) error {
	return c.run("INSERT INTO mini (no, rows, bytes, tmin, tmax, levels, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
		m.no, int64(m.rows), int64(m.bytes), m.tmin, m.tmax, int64(m.levels), data)
}

// several writes rows of more than one day. They go to state.db first, as they
// are to be: a line without a time would belong to another day if it were read
// again after midnight, and then be there twice or not at all.
func (s *Store) several(ctx context.Context, ops map[Day]*op, ends map[FileID]int64) error {
	err := s.state.Write(ctx, func(tx *store.Tx) error {
		for _, o := range ops {
			_, err := tx.Exec("INSERT INTO pending (day, data, sources) VALUES (?, ?, ?)", int64(o.date), encodeMini(o.rows), encodeSources(s, o.sources))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.pending = true
	for _, o := range ops {
		if err := s.commit(o); err != nil {
			return err
		}
	}
	return s.settle(ctx, ends)
}

// settle writes positions and ends what was pending, in one transaction.
func (s *Store) settle(ctx context.Context, ends map[FileID]int64) error {
	err := s.state.Write(ctx, func(tx *store.Tx) error {
		for id, pos := range ends {
			if _, err := tx.Exec("UPDATE file SET pos=max(pos, ?) WHERE id=?", pos, s.files[id].id); err != nil {
				return err
			}
		}
		_, err := tx.Exec("DELETE FROM pending")
		return err
	})
	if err == nil {
		s.pending = false
	}
	return err
}

// replay brings the pending rows to those days that do not have them.
func (s *Store) replay(ctx context.Context) error {
	var ops []*op
	ends := map[FileID]int64{}
	byID := map[int64]FileID{}
	for id, f := range s.files {
		byID[f.id] = id
	}
	err := s.state.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query("SELECT day, data, sources FROM pending ORDER BY id")
		if err != nil {
			return err
		}
		for rows.Next() {
			var date int64
			var data, sources []byte
			if err := rows.Scan(&date, &data, &sources); err != nil {
				return err
			}
			o := &op{date: Day(date), sources: map[FileID]int64{}}
			if o.rows, err = decodeMini(data); err != nil {
				return err
			}
			if err := decodeSources(sources, func(num, pos int64) {
				if id, ok := byID[num]; ok {
					o.sources[id] = pos
					ends[id] = max(ends[id], pos)
				}
			}); err != nil {
				return err
			}
			ops = append(ops, o)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	for _, o := range ops {
		d, err := s.writer(o.date)
		done := false
		if err == nil {
			done, err = s.has(d, o)
		}
		if err != nil && !isDamage(err) {
			return classify(d.path, err)
		}
		if !done {
			if err := s.commit(o); err != nil {
				return err
			}
		}
	}
	if err := s.settle(ctx, ends); err != nil {
		return err
	}
	for id, pos := range ends {
		s.files[id].pos = max(s.files[id].pos, pos)
	}
	return nil
}

// has tells whether the day took the op in before: its rows and all its
// positions are of one transaction.
func (s *Store) has(d *day, o *op) (bool, error) {
	for id, pos := range o.sources {
		have := int64(-1)
		err := d.w.each("SELECT pos FROM source WHERE id=?", func(r []driver.Value) error { have = integer(r[0]); return nil }, s.files[id].id)
		return have >= pos, err
	}
	return false, nil
}

// room waits while a day has more rows than the sealer can keep up with.
func (s *Store) room(ctx context.Context, ops map[Day]*op) error {
	for _, o := range ops {
		for {
			s.mu.Lock()
			d, sealed := s.days[o.date], s.sealed
			err := s.sealErr
			s.mu.Unlock()
			if d == nil || d.headRows < maxWaiting && d.headBytes < maxWaitBytes {
				break
			}
			s.queue(d)
			if err != nil && !d.queued {
				return err
			}
			s.pass()
			select {
			case <-sealed:
			case <-ctx.Done():
			}
			<-s.turn
			if err := ctx.Err(); err != nil {
				return err
			}
			if s.closed {
				return fault.New(fault.Unavailable, "the log store is closed")
			}
		}
	}
	return nil
}
