package logstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"
)

// What would hold up appends and queries is done by one goroutine: copying the
// logs of day files into them, writing positions down, closing files.
const (
	keepEvery  = time.Second
	copyFrom   = 2 << 20 // bytes of rows; then a day's log is copied
	restPages  = 64      // so few are copied while nobody may write
	copyTries  = 4
	noteEvery  = 5 * time.Second
	quietTicks = 30 // without a word; then a day is finished, and closed for writing
	leavesMax  = 16 // connections that wait to be closed
)

// nudge wakes the keeper when a log has become long.
func (s *Store) nudge() {
	for _, d := range s.writers {
		if d.toCopy >= copyFrom {
			select {
			case s.wake <- struct{}{}:
			default:
			}
			return
		}
	}
}

func (s *Store) keep(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	noted, looked := time.Now(), NoDay
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
			all = true
		}
		if err := s.copyLogs(ctx, all); err != nil && ctx.Err() == nil {
			s.opt.Log.Warn("a day's log is not copied into it yet", "error", err)
		}
		if all {
			if err := s.finishQuiet(ctx); err != nil && ctx.Err() == nil {
				s.opt.Log.Warn("rows of a day that has passed wait to be indexed", "error", err)
			}
			if d := s.dayAfter(looked); d != nil {
				looked = d.date
				// What is no damage is told to those who ask.
				if err := s.glance(ctx, d); err != nil && ctx.Err() == nil {
					s.opt.Log.Debug("a day cannot be read now", "file", d.path, "error", err)
				}
			}
		}
		if all && time.Since(noted) >= noteEvery {
			noted = time.Now()
			// The days have the positions already.
			if err := s.note(ctx); err != nil && ctx.Err() == nil {
				s.opt.Log.Warn("positions are not written yet", "error", err)
			}
		}
	}
}

// dayAfter gives the days by turns.
func (s *Store) dayAfter(last Day) *day {
	days := s.dayList(minMicro, maxMicro)
	if len(days) == 0 {
		return nil
	}
	if i := slices.IndexFunc(days, func(d *day) bool { return d.date > last }); i >= 0 {
		return days[i]
	}
	return days[0]
}

// copyLogs copies the logs of days that are open for writing: those that have
// become long, or all.
func (s *Store) copyLogs(ctx context.Context, all bool) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	var list []*day
	for _, d := range slices.Clone(s.writers) {
		switch {
		case d.toCopy >= copyFrom || all && !s.shorten(d):
			list = append(list, d)
			d.toCopy, d.quiet = 0, 0
		case all:
			if d.quiet++; d.quiet >= s.quietTicks && !s.toFinish(d) {
				s.forgetWriter(d)
				s.retire(d)
			}
		}
	}
	s.pass()
	var errs []error
	for _, d := range list {
		err := s.copyLog(ctx, d)
		switch {
		case err == nil || errors.Is(err, errGone):
		case isDamage(err):
			errs = append(errs, s.setAside(ctx, d, err))
		default:
			errs = append(errs, classify(d.path, err))
		}
	}
	return errors.Join(errs...)
}

// toFinish tells whether a day that has passed has rows that wait, or segments to
// join. The caller has the turn.
func (s *Store) toFinish(d *day) bool {
	days := s.dayList(minMicro, maxMicro)
	return len(days) > 0 && d != days[len(days)-1] && (len(d.head) > 0 || !d.joined)
}

// finishQuiet finishes days that have passed and get no more late rows. Rows that
// wait are searched one by one, and when several days have some, there is no room
// to remember them all.
func (s *Store) finishQuiet(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	var list []*day
	for _, d := range s.writers {
		if d.quiet >= s.quietTicks && s.toFinish(d) {
			list = append(list, d)
			d.quiet = 0
		}
	}
	s.pass()
	var errs []error
	for _, d := range list {
		errs = append(errs, s.finish(ctx, d))
	}
	return errors.Join(errs...)
}

// progress is how many pages a log has, and how many of them are in the file.
type progress struct{ pages, copied int64 }

func (c *conn) checkpoint(mode string) (p progress, err error) {
	err = c.each("PRAGMA wal_checkpoint("+mode+")", func(r []driver.Value) error {
		p = progress{integer(r[1]), integer(r[2])}
		return nil
	})
	return p, err
}

// copyLog copies most of the log while appends go on. SQLite begins a log anew
// only when all of it is copied, so the rest is copied while nobody may write.
func (s *Store) copyLog(ctx context.Context, d *day) error {
	var p progress
	err := d.with(func(c *conn) (err error) {
		for range copyTries {
			before := p.copied
			if p, err = c.checkpoint("PASSIVE"); err != nil || p.pages-p.copied <= restPages || p.copied == before {
				return err
			}
		}
		return nil
	})
	if err != nil || p.copied == p.pages || p.pages-p.copied > restPages {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	return d.with(func(c *conn) error {
		_, err := c.checkpoint("PASSIVE")
		return err
	})
}

// shorten empties a log that is copied. It waits neither for readers nor for the
// disk: there is a next time. It tells whether there is nothing to copy. The
// caller has the turn.
func (s *Store) shorten(d *day) (copied bool) {
	fi, err := os.Stat(d.path + "-wal")
	if err != nil || fi.Size() == 0 || d.w == nil {
		return true
	}
	p, err := d.w.checkpoint("NOOP")
	if err != nil || p.copied < p.pages {
		return false
	}
	err = d.w.exec("PRAGMA busy_timeout=0")
	if err == nil {
		_, err = d.w.checkpoint("TRUNCATE")
	}
	if err = errors.Join(err, d.w.exec("PRAGMA busy_timeout="+strconv.Itoa(busyTimeoutMS))); err != nil {
		s.opt.Log.Warn("a day's log is not made shorter", "file", d.path, "error", err)
	}
	return true
}

// leave is a connection that nobody writes with any more. Until it is closed
// the day counts as being read, so that its file keeps its name.
type leave struct {
	d *day
	c *conn
}

func (l leave) end(log *slog.Logger) {
	// So that nothing is left to do for the reader that closes the file last.
	_, err := l.c.checkpoint("PASSIVE")
	if err = errors.Join(err, l.c.close()); err != nil {
		log.Warn("close a day", "file", l.d.path, "error", err)
	}
	l.d.reading.RUnlock()
}

// closeSoon closes what was retired. It never needs the turn: who has that may
// wait for it.
func (s *Store) closeSoon(ctx context.Context) {
	for {
		select {
		case l := <-s.closing:
			l.end(s.opt.Log)
		case <-ctx.Done():
			return
		}
	}
}

// retire closes a day's writing connection, soon. The caller has the turn.
func (s *Store) retire(d *day) {
	c := d.takeWriter()
	if c == nil {
		return
	}
	d.reading.RLock()
	select {
	case s.closing <- leave{d, c}:
	default:
		leave{d, c}.end(s.opt.Log)
	}
}
