package logstore

import (
	"context"
	"time"

	"vpnd/pkg/fault"
)

// Retain removes the days that are too old or too much, and gives them. It also
// finishes days that nothing more is written to. It is for a timer.
func (s *Store) Retain(ctx context.Context) ([]Day, error) {
	var out []Day
	days := s.dayList(minMicro, maxMicro)
	total := int64(0)
	sizes := make([]int64, len(days))
	for i, d := range days {
		sizes[i] = d.size()
		total += sizes[i]
	}
	now := s.opt.Now()
	for i, d := range days {
		old := s.opt.MaxAge > 0 && now.Sub(d.date.Time().Add(24*time.Hour)) > s.opt.MaxAge
		// The newest day stays whatever it takes: what happens now is in it.
		much := s.opt.MaxBytes > 0 && total > s.opt.MaxBytes && i < len(days)-1
		if old || much {
			if err := s.remove(ctx, d); err != nil {
				return out, err
			}
			total -= sizes[i]
			out = append(out, d.date)
			continue
		}
		if i < len(days)-1 {
			if err := s.finish(ctx, d); err != nil {
				return out, err
			}
		}
	}
	if err := s.take(ctx); err != nil {
		return out, err
	}
	defer s.pass()
	return out, s.flush(ctx)
}

func (s *Store) remove(ctx context.Context, d *day) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	return s.removeDay(ctx, d)
}

// removeDay removes a day with its file. Positions that only it knew are
// written first, else its source files would be read again. The caller has the
// turn.
func (s *Store) removeDay(ctx context.Context, d *day) error {
	if s.pending {
		if err := s.replay(ctx); err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	if s.days[d.date] == d {
		delete(s.days, d.date)
	}
	s.mu.Unlock()
	s.forgetWriter(d)
	if err := d.remove(); err != nil {
		return classify(d.path, err)
	}
	s.opt.Log.Info("day removed", "day", d.date.String())
	return nil
}

// finish makes a segment of the rest of a day that has passed.
func (s *Store) finish(ctx context.Context, d *day) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	if d.gone.Load() {
		return nil
	}
	if _, err := s.writer(d.date); err != nil {
		return s.sealFault(d, err)
	}
	for len(d.head) > 0 && !d.gone.Load() {
		n := d.headRows
		if err := s.sealSome(d, true); err != nil {
			return err
		}
		if !d.gone.Load() && d.headRows == n {
			return fault.New(fault.Internal, "rows of %s are not made a segment", d.path)
		}
	}
	return nil
}
