package logstore

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

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

// notes are what state.db is to be told: positions that only the days know, and
// how many rows these days have had.
type notes struct {
	files  []noted
	floors []floor
	days   []*day // of floors
}

type noted struct {
	f   *file
	pos int64
}

// floor is a number that a day's next row had once, in the file that it was in.
type floor struct {
	date     Day
	ino, seq int64
}

// note writes positions and floors down. It waits for the disk without the turn.
func (s *Store) note(ctx context.Context) error {
	s.noting.Lock()
	defer s.noting.Unlock()
	if err := s.take(ctx); err != nil {
		return err
	}
	n := s.toNote()
	s.pass()
	if err := s.writeNotes(ctx, n); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	for _, e := range n.files {
		e.f.dirty = e.f.pos != e.pos
	}
	for i, d := range n.days {
		d.noted, d.raised = n.floors[i].seq, false
	}
	return nil
}

func (s *Store) toNote() notes {
	var n notes
	for _, f := range s.files {
		if f.dirty {
			n.files = append(n.files, noted{f, f.pos})
		}
	}
	for _, d := range s.dayList(minMicro, maxMicro) {
		if d.knowsMore() {
			n.floors = append(n.floors, floor{d.date, inode(d.path), d.nextSeq})
			n.days = append(n.days, d)
		}
	}
	return n
}

// knowsMore tells whether the day had rows that state.db was not told of.
func (d *day) knowsMore() bool { return d.raised || d.nextSeq != d.noted }

// writeNotes brings the rows to the disk first: after a power failure no
// position may be ahead of them.
func (s *Store) writeNotes(ctx context.Context, n notes) error {
	if len(n.files) == 0 && len(n.floors) == 0 {
		return nil
	}
	for _, d := range n.days {
		if err := syncFile(d.path + "-wal"); err != nil {
			return err
		}
	}
	return s.state.Write(ctx, func(tx *store.Tx) error {
		for _, e := range n.files {
			if _, err := tx.Exec("UPDATE file SET pos=max(pos, ?) WHERE id=?", e.pos, e.f.id); err != nil {
				return err
			}
		}
		for _, f := range n.floors {
			if _, err := tx.Exec("INSERT OR REPLACE INTO floor (day, ino, seq) VALUES (?, ?, ?)", int64(f.date), f.ino, f.seq); err != nil {
				return err
			}
		}
		return nil
	})
}

// syncFile must not be given a database file: closing it takes SQLite's locks on
// it away.
func syncFile(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was copied and removed
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	return classify(name, err)
}

// inode tells a file from a later one of the same name; 0: there is none.
func inode(path string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0
	}
	return int64(st.Ino)
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
			f.pos, f.dirty, d.raised = pos, true, true
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
	r := reader{b: body}
	for r.left() > 0 && !r.bad {
		num := int64(r.uvarint())
		fn(num, int64(r.uvarint()))
	}
	if r.bad {
		return errDamaged
	}
	return nil
}
