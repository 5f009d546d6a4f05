package logstore

import (
	"context"
	"database/sql/driver"

	"vpnd/pkg/store"
)

// several writes rows of more than one day. They go to state.db first, as they
// are to be: a line without a time would belong to another day if it were read
// again after midnight, and then be there twice or not at all.
func (s *Store) several(ctx context.Context, in intake) error {
	s.pending = true // also when it is not certain that this was written
	err := s.state.Write(ctx, func(tx *store.Tx) error {
		for _, o := range in.ops {
			_, err := tx.Exec("INSERT INTO pending (day, data, sources) VALUES (?, ?, ?)", int64(o.date), encodeMini(o.rows), encodeSources(s, o.sources))
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, o := range in.ops {
		if err == nil {
			err = s.commit(o)
		}
	}
	if err == nil {
		err = s.settle(ctx, in.ends)
	}
	if err != nil {
		s.remember(in.ops)
	}
	return err
}

// remember keeps what is needed to tell the ids of these rows when they are
// brought again: some are in, and the rest will be.
func (s *Store) remember(ops map[Day]*op) {
	for _, o := range ops {
		o.came = make([]came, len(o.from))
		for i, f := range o.from {
			o.came[i] = came{f.batch.File, f.row.Offset}
		}
		o.from = nil
	}
	s.unfinished = ops
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
			if u := s.unfinished[o.date]; u != nil {
				o = u // the same rows, and it knows who brought them
			}
			ops = append(ops, o)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	if len(ops) == 0 {
		s.pending, s.unfinished = false, nil
		return nil
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
	s.unfinished, s.late = nil, map[came]row{}
	for _, o := range ops {
		for i, at := range o.came {
			s.late[at] = o.rows[i]
		}
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
