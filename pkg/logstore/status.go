package logstore

import (
	"context"
	"database/sql/driver"
	"time"
)

// DayStatus is what there is of one day.
type DayStatus struct {
	Day            Day
	Rows, Waiting  int64 // Waiting: of the rows, those that are not indexed yet
	Bytes          int64
	Oldest, Newest time.Time
}

// Status is what the store knows of itself.
type Status struct {
	Days           []DayStatus // oldest first
	Rows, Bytes    int64
	Oldest, Newest time.Time
	Damaged        []string  // files that were set aside, still in the folder
	Aside          []Damaged // the same, with what is known of them
	Over           int64     // bytes above Options.MaxBytes that Retain may not free
	Added          int64     // rows since Open
	Queries, Slow  int64     // queries since Open, and those that took too long
	Files          int       // source files with a position
}

// Status looks at every day; it reads no rows.
func (s *Store) Status(ctx context.Context) (Status, error) {
	st := Status{Added: s.stats.rows.Load(), Queries: s.stats.queries.Load(), Slow: s.stats.slow.Load()}
	for _, d := range s.dayList(minMicro, maxMicro) {
		ds, err := s.dayStatus(ctx, d)
		if err != nil {
			return st, err
		}
		if ds.Rows == 0 {
			continue
		}
		if len(st.Days) == 0 {
			st.Oldest = ds.Oldest
		}
		st.Newest = ds.Newest
		st.Rows += ds.Rows
		st.Bytes += ds.Bytes
		st.Days = append(st.Days, ds)
	}
	var err error
	if st.Aside, err = s.asides(); err != nil {
		return st, err
	}
	for _, a := range st.Aside {
		st.Damaged = append(st.Damaged, a.File)
		st.Bytes += a.Bytes
	}
	if st.Over, err = s.over(); err != nil {
		return st, err
	}
	if err := s.take(ctx); err != nil {
		return st, err
	}
	st.Files = len(s.files)
	s.pass()
	return st, nil
}

// over is by how much the days that are never removed for their size are above
// the limit.
func (s *Store) over() (int64, error) {
	all, err := s.everything()
	if err != nil || s.opt.MaxBytes <= 0 {
		return 0, err
	}
	n := -s.opt.MaxBytes
	for _, k := range all {
		if s.current(k.date, all) {
			n += k.bytes
		}
	}
	return max(n, 0), nil
}

// seenStatus is what a day said when it was opened for writing so many times.
type seenStatus struct {
	opened int64
	DayStatus
}

// dayStatus asks a day once, until it is written to again.
func (s *Store) dayStatus(ctx context.Context, d *day) (DayStatus, error) {
	opened := d.opened.Load()
	writing := opened%2 != 0
	if seen := d.seen.Load(); seen != nil && seen.opened == opened && !writing {
		return seen.DayStatus, nil
	}
	ds := DayStatus{Day: d.date}
	ok, err := s.readDay(ctx, d, func(c *conn) error { return ds.read(c) })
	if err != nil || !ok {
		return DayStatus{}, err
	}
	ds.Bytes = d.size()
	if !writing && d.opened.Load() == opened {
		d.seen.Store(&seenStatus{opened, ds})
	}
	return ds, nil
}

func (ds *DayStatus) read(c *conn) error {
	oldest, newest := int64(maxMicro), int64(minMicro)
	for i, query := range []string{"SELECT count(*), sum(rows), min(tmin), max(tmax) FROM segment", "SELECT count(*), sum(rows), min(tmin), max(tmax) FROM mini"} {
		err := c.each(query, func(r []driver.Value) error {
			if integer(r[0]) == 0 {
				return nil
			}
			ds.Rows += integer(r[1])
			if i == 1 {
				ds.Waiting = integer(r[1])
			}
			oldest, newest = min(oldest, integer(r[2])), max(newest, integer(r[3]))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if ds.Rows > 0 {
		ds.Oldest, ds.Newest = microTime(oldest), microTime(newest)
	}
	return nil
}
