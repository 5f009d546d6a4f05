package logstore

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"maps"

	"vpnd/pkg/store"
)

// Positions tells how far each source file is in. Reading goes on there.
func (s *Store) Positions(ctx context.Context) (map[FileID]int64, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.pass()
	out := make(map[FileID]int64, len(s.files))
	for id, f := range s.files {
		out[id] = f.pos
	}
	return out, nil
}

// Forget drops the position of a file that is gone, or that begins anew after
// it was cut short.
func (s *Store) Forget(ctx context.Context, id FileID) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	if s.pending {
		if err := s.replay(ctx); err != nil {
			return err
		}
	}
	f := s.files[id]
	if f == nil {
		return nil
	}
	err := s.state.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec("DELETE FROM file WHERE id=?", f.id)
		return err
	})
	if err == nil {
		delete(s.files, id)
	}
	return err
}

// flush writes positions that only the days know. Before a day is removed it
// must have been done.
func (s *Store) flush(ctx context.Context) error {
	dirty := maps.Clone(s.files)
	maps.DeleteFunc(dirty, func(_ FileID, f *file) bool { return !f.dirty })
	s.flushed = s.opt.Now()
	if len(dirty) == 0 {
		return nil
	}
	err := s.state.Write(ctx, func(tx *store.Tx) error {
		for _, f := range dirty {
			if _, err := tx.Exec("UPDATE file SET pos=? WHERE id=?", f.pos, f.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, f := range dirty {
			f.dirty = false
		}
	}
	return err
}

// recover raises positions to what the day knows. Numbers that state.db does
// not have are of files that were forgotten, unless state.db itself is new.
func (s *Store) recover(d *day, fresh bool) error {
	byNumber := map[int64]*file{}
	for _, f := range s.files {
		byNumber[f.id] = f
	}
	return d.w.each("SELECT id, dev, ino, path, pos FROM source", func(r []driver.Value) error {
		path, _ := r[3].(string)
		id := FileID{uint64(integer(r[1])), uint64(integer(r[2])), path}
		num, pos := integer(r[0]), integer(r[4])
		f := byNumber[num]
		if f == nil && fresh {
			if f = s.files[id]; f == nil || f.id < num {
				err := s.state.Write(context.Background(), func(tx *store.Tx) error {
					_, err := tx.Exec("INSERT OR REPLACE INTO file (id, dev, ino, path, pos) VALUES (?, ?, ?, ?, ?)",
						num, int64(id.Dev), int64(id.Ino), id.Path, pos)
					return err
				})
				if err != nil {
					return err
				}
				s.files[id] = &file{id: num, pos: pos}
			}
			return nil
		}
		if f != nil && pos > f.pos {
			f.pos, f.dirty = pos, true
		}
		return nil
	})
}

func encodeSources(s *Store, sources map[FileID]int64) []byte {
	b := newFrame(16 * len(sources))
	for id, pos := range sources {
		b = binary.AppendUvarint(b, uint64(s.files[id].id))
		b = binary.AppendUvarint(b, uint64(pos))
	}
	return sealFrame(b)
}

func decodeSources(blob []byte, fn func(num, pos int64)) error {
	body, err := openFrame(blob)
	if err != nil {
		return err
	}
	r := reader{b: string(body)}
	for r.left() > 0 && !r.bad {
		num := int64(r.uvarint())
		fn(num, int64(r.uvarint()))
	}
	if r.bad {
		return errDamaged
	}
	return nil
}
