package logstore

import (
	"context"
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
	maxWaiting   = 2 * segmentRows // rows of a day that wait for the sealer before Append waits too
	maxWaitBytes = 2 * segmentBytes
)

// op is what one append means for one day.
type op struct {
	date    Day
	rows    []row // without Seq until they are written
	from    []origin
	came    []came // in the place of from, for an append that failed halfway
	sources map[FileID]int64
}

// origin is the caller's row that a row was made of.
type origin struct {
	batch *Batch
	row   *Row
}

// came is origin for one that must outlive the call.
type came struct {
	file   FileID
	offset int64
}

// tell gives the caller the ids of what was written.
func (o *op) tell() {
	for i, f := range o.from {
		f.row.ID, f.row.New = o.rows[i].id, true
	}
}

// intake is what an append means for the store.
type intake struct {
	ops  map[Day]*op
	ends map[FileID]int64
	late []origin // rows that came in after the append that brought them first had failed
}

// Append is AppendAll of one batch.
func (s *Store) Append(ctx context.Context, b Batch) error { return s.AppendAll(ctx, []Batch{b}) }

// AppendAll takes batches in, each row exactly once however often its bytes are
// brought, and returns when they survive the death of the process. It sets New
// and ID of the rows. After an error the same batches are brought again. A file
// that was cut short or replaced is Forgotten first: rows before its position
// are taken as known.
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
	in, err := s.divide(ctx, batches)
	if err != nil {
		return err
	}
	if err := s.room(ctx, in.ops); err != nil {
		return err
	}
	switch len(in.ops) {
	case 0:
	case 1:
		for _, o := range in.ops {
			err = s.commit(o)
		}
	default:
		err = s.several(ctx, in)
	}
	if err != nil {
		return err
	}
	for id, pos := range in.ends {
		f := s.files[id]
		f.dirty = f.dirty || f.pos != pos
		f.pos = pos
	}
	for _, o := range in.ops {
		o.tell()
		s.stats.rows.Add(int64(len(o.rows)))
	}
	for _, f := range in.late {
		at := came{f.batch.File, f.row.Offset}
		r := s.late[at]
		f.row.ID, f.row.New, f.row.Record = r.id, true, r.rec
		delete(s.late, at)
	}
	return nil
}

// divide sorts rows that are new into days.
func (s *Store) divide(ctx context.Context, batches []Batch) (intake, error) {
	in := intake{ops: map[Day]*op{}, ends: map[FileID]int64{}}
	for i := range batches {
		b := &batches[i]
		if b.From < 0 || b.To < b.From {
			return in, fault.InvalidField("batch", "bytes %d to %d of %s are no range", b.From, b.To, b.File.Path)
		}
		pos, ok := in.ends[b.File]
		if !ok {
			f, err := s.file(ctx, b.File)
			if err != nil {
				return in, err
			}
			pos = f.pos
		}
		in.ends[b.File] = max(pos, b.To)
		for k := range b.Rows {
			r := &b.Rows[k]
			r.ID, r.New = ID{}, false
			if r.Offset <= pos {
				if _, ok := s.late[came{b.File, r.Offset}]; ok {
					in.late = append(in.late, origin{b, r})
				}
				continue
			}
			if r.Offset > b.To {
				return in, fault.InvalidField("batch", "a row of %s ends after the batch", b.File.Path)
			}
			us := r.Record.Time.UnixMicro()
			date := dayOfMicro(us)
			o := in.ops[date]
			if o == nil {
				o = &op{date: date, sources: map[FileID]int64{}}
				if len(in.ops) == 0 { // most appends are of one day
					o.rows, o.from = make([]row, 0, len(b.Rows)-k), make([]origin, 0, len(b.Rows)-k)
				}
				in.ops[date] = o
			}
			o.rows = append(o.rows, row{ID{Time: us}, r.Record})
			o.from = append(o.from, origin{b, r})
			o.sources[b.File] = in.ends[b.File]
		}
	}
	return in, nil
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

// commit writes an op to its day. A damaged day is set aside, and the rows go
// to a new file.
func (s *Store) commit(o *op) error {
	for attempt := 0; ; attempt++ {
		d, err := s.writer(o.date)
		if err == nil {
			err = s.write(d, o)
		}
		if err == nil {
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
		d.toCopy += p.meta.bytes
		s.cache.put(d, p.meta.no, p.rows, p.meta.bytes)
	}
	s.queue(d)
	s.nudge()
	return nil
}

func insertMini(c *conn, m miniMeta, data []byte) error {
	return c.run("INSERT INTO mini (no, rows, bytes, tmin, tmax, levels, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
		m.no, int64(m.rows), int64(m.bytes), m.tmin, m.tmax, int64(m.levels), data)
}

// room waits while a day has more rows than the sealer can keep up with.
func (s *Store) room(ctx context.Context, ops map[Day]*op) error {
	for _, o := range ops {
		for waited := false; ; waited = true {
			s.mu.Lock()
			d, sealed := s.days[o.date], s.sealed
			err := s.sealErr
			s.mu.Unlock()
			if d == nil || d.headRows < maxWaiting && d.headBytes < maxWaitBytes {
				break
			}
			if err != nil && waited {
				return err // else it would wait for ever, and nobody would know why
			}
			s.queue(d)
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
