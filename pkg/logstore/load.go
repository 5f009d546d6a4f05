package logstore

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// load finds the days and what each knows of the positions.
func (s *Store) load(ctx context.Context, fresh bool) error {
	entries, err := os.ReadDir(s.opt.Dir)
	if err != nil {
		return classify(s.opt.Dir, err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".db")
		t, err := time.Parse(time.DateOnly, name)
		if !ok || err != nil || !e.Type().IsRegular() {
			continue
		}
		date := DayOf(t)
		s.days[date] = newDay(date, s.dayPath(date))
	}
	for _, d := range s.dayList(minMicro, maxMicro) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.openWriter()
		if err == nil {
			err = s.whole(d)
		}
		if err == nil {
			err = s.recover(d, fresh)
		}
		if err == nil {
			err = d.findLitter()
		}
		switch {
		case err != nil && isDamage(err):
			if err := s.setAsideLocked(d, err); err != nil {
				return err
			}
			continue
		case err != nil:
			_ = d.closeWriter()
			return classify(d.path, err)
		}
		if err := d.closeWriter(); err != nil {
			return classify(d.path, err)
		}
	}
	if s.pending {
		return s.replay(ctx)
	}
	return nil
}

// writer gives a day that is open for writing. The caller has the turn.
func (s *Store) writer(date Day) (*day, error) {
	s.mu.Lock()
	d, old := s.days[date], s.dying[date]
	s.mu.Unlock()
	if d == nil {
		if old != nil {
			<-old.detached // SQLite finds the log of a file by its name
		}
		d = newDay(date, s.dayPath(date))
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
		s.retire(old)
	}
	return d, nil
}

func (s *Store) forgetWriter(d *day) {
	for i, o := range s.writers {
		if o == d {
			s.writers = append(s.writers[:i:i], s.writers[i+1:]...)
			return
		}
	}
}

// whole tells when rows are missing that were once on the disk. SQLite takes what
// it cannot read of a log for a transaction that was under way, and says
// nothing.
func (s *Store) whole(d *day) error {
	f, ok := s.floors[d.date]
	if !ok || inode(d.path) != f.ino {
		return nil
	}
	if d.noted = f.seq; d.nextSeq >= f.seq {
		return nil
	}
	return fmt.Errorf("the newest %d rows are missing, its log was damaged or removed: %w", f.seq-d.nextSeq, errDamaged)
}
