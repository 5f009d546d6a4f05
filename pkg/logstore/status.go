package logstore

import (
	"context"
	"database/sql/driver"
	"os"
	"path/filepath"
	"strings"
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
	Damaged        []string // files that were set aside, still in the folder
	Added          int64    // rows since Open
	Queries, Slow  int64    // queries since Open, and those that took too long
	Files          int      // source files with a position
}

// Status looks at every day; it reads no rows.
func (s *Store) Status(ctx context.Context) (Status, error) {
	st := Status{Added: s.stats.rows.Load(), Queries: s.stats.queries.Load(), Slow: s.stats.slow.Load()}
	for _, d := range s.dayList(minMicro, maxMicro) {
		ds := DayStatus{Day: d.date, Bytes: d.size()}
		ok, err := s.readDay(ctx, d, func(c *conn) error { return ds.read(c) })
		if err != nil {
			return st, err
		}
		if !ok || ds.Rows == 0 {
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
	names, err := filepath.Glob(filepath.Join(escapeGlob(s.opt.Dir), "*.damaged"))
	if err != nil {
		return st, err
	}
	for _, name := range names {
		if fi, err := os.Stat(name); err == nil {
			st.Damaged = append(st.Damaged, filepath.Base(name))
			st.Bytes += fi.Size()
		}
	}
	if err := s.take(ctx); err != nil {
		return st, err
	}
	st.Files = len(s.files)
	s.pass()
	return st, nil
}

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
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
