package logstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

// kept is what retention decides about: a day, or a file that was set aside.
type kept struct {
	date  Day
	bytes int64
	d     *day
	aside Damaged
}

// Retain removes the days that are too old or too much, and gives them. What
// was set aside goes with its day. Today and what is later is never removed for
// its size, nor is the newest day: Status tells when that alone is too much. It
// also finishes days that nothing more is written to. It is for a timer.
func (s *Store) Retain(ctx context.Context) ([]Day, error) {
	all, err := s.everything()
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, k := range all {
		total += k.bytes
	}
	var out []Day
	for _, k := range all {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		old := s.opt.MaxAge > 0 && s.opt.Now().Sub(k.date.Time().Add(24*time.Hour)) > s.opt.MaxAge
		much := s.opt.MaxBytes > 0 && total > s.opt.MaxBytes && !s.current(k.date, all)
		switch {
		case (old || much) && k.d != nil:
			if err := s.remove(ctx, k.d); err != nil {
				return out, err
			}
			out = append(out, k.date)
			total -= k.bytes
		case old || much:
			if err := s.removeAside(k.aside); err != nil {
				return out, err
			}
			total -= k.bytes
		case k.d != nil && k.d != all[len(all)-1].d:
			if err := s.finish(ctx, k.d); err != nil {
				return out, err
			}
		}
	}
	err = s.note(ctx)
	if fault.ReasonOf(err) == "disk_full" {
		err = nil // the keeper tries again, and Append says it
	}
	return out, err
}

// everything is what takes space, by day.
func (s *Store) everything() ([]kept, error) {
	asides, err := s.asides()
	if err != nil {
		return nil, err
	}
	var all []kept
	for _, a := range asides {
		if a.Day != NoDay {
			all = append(all, kept{date: a.Day, bytes: a.Bytes, aside: a})
		}
	}
	for _, d := range s.dayList(minMicro, maxMicro) {
		all = append(all, kept{date: d.date, bytes: d.size(), d: d})
	}
	slices.SortStableFunc(all, func(a, b kept) int { return int(a.date) - int(b.date) })
	return all, nil
}

// current tells of the days whose size is no reason to remove them: what
// happens now is in them.
func (s *Store) current(date Day, all []kept) bool {
	return date >= min(DayOf(s.opt.Now()), all[len(all)-1].date)
}

// remove removes a day with its file. Positions that only it knows are written
// first, else its source files would be read again.
func (s *Store) remove(ctx context.Context, d *day) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	for range 3 {
		if !d.knowsMore() {
			break
		}
		// It waits for the disk, so it is done without the turn.
		s.pass()
		if err := s.note(ctx); err != nil {
			return err
		}
		if err := s.take(ctx); err != nil {
			return err
		}
	}
	if d.gone.Load() {
		s.pass()
		return nil
	}
	w, f, err := s.unlink(ctx, d)
	if d.gone.Load() {
		s.done.Go(func() { s.bury(d, w, f) })
	}
	s.pass()
	if err != nil {
		return classify(d.path, err)
	}
	s.opt.Log.Info("day removed", "day", d.date.String())
	return nil
}

// bury closes what is open of a day without a name, when its readers have left.
// Giving back the space of a large file takes a while.
func (s *Store) bury(d *day, w *conn, f *os.File) {
	if err := s.dropFloor(d.date); err != nil {
		s.opt.Log.Warn("how many rows a day had is not forgotten", "day", d.date.String(), "error", err)
	}
	if w != nil {
		_ = w.close() // nothing of it is needed any more
	}
	d.detach()
	_ = f.Close() // nil when there was no file
	s.mu.Lock()
	delete(s.dying, d.date)
	s.mu.Unlock()
}

// unlink takes the names of a day's file away; its space is free when nobody
// reads it any more. The caller has the turn; the day is buried without it. SQLite
// neither copies nor removes the log of a file that has no name.
func (s *Store) unlink(ctx context.Context, d *day) (w *conn, f *os.File, err error) {
	if s.pending {
		if err := s.replay(ctx); err != nil {
			return nil, nil, err
		}
	}
	// Held open, so that the space is not given back before the turn is.
	if f, err = os.Open(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	s.dropDay(d)
	s.mu.Lock()
	s.dying[d.date] = d
	s.mu.Unlock()
	d.gone.Store(true)
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(d.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return d.takeWriter(), f, errors.Join(errs...)
}

// dropFloor forgets how many rows a day had, before there can be a new file.
func (s *Store) dropFloor(date Day) error {
	s.noting.Lock()
	defer s.noting.Unlock()
	return s.state.Write(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("DELETE FROM floor WHERE day=?", int64(date))
		return err
	})
}
