package logstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/store"
)

// Damaged is a file that was found damaged and set aside.
type Damaged struct {
	File   string // its name now, in the store's folder
	Day    Day    // NoDay for the file of positions
	Reason string
	Bytes  int64
}

// NoDay is the Day of what belongs to none.
const NoDay = Day(-1 << 31)

const asideSuffix = ".damaged"

// setAside renames a damaged day so that it is out of the way but not lost.
func (s *Store) setAside(ctx context.Context, d *day, cause error) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.pass()
	return s.setAsideLocked(d, cause)
}

func (s *Store) setAsideLocked(d *day, cause error) error {
	if !s.dropDay(d) {
		return nil // somebody else was quicker
	}
	s.opt.Log.Error("day file is damaged and set aside; the other days go on", "file", d.path, "error", cause)
	// Renamed before it is closed: closing the last connection would copy the log
	// into the file.
	d.gone.Store(true)
	name, err := renameAside(d.path)
	d.detach()
	if err != nil {
		return classify(d.path, err)
	}
	s.noteWhy(name, cause)
	return nil
}

// dropDay takes a day out of all lists. It tells whether it was in one.
func (s *Store) dropDay(d *day) bool {
	s.mu.Lock()
	mine := s.days[d.date] == d
	if mine {
		delete(s.days, d.date)
	}
	s.warm = slices.DeleteFunc(s.warm, func(o *day) bool { return o == d })
	s.mu.Unlock()
	if mine {
		s.forgetWriter(d)
	}
	return mine
}

// noteWhy keeps the reason in state.db. On a full disk it is only known until
// the store is closed.
func (s *Store) noteWhy(name string, cause error) {
	why := cause.Error()
	s.mu.Lock()
	s.why[name] = why
	s.mu.Unlock()
	err := s.state.Write(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO damaged (name, why) VALUES (?, ?)", name, why)
		return err
	})
	if err != nil {
		s.opt.Log.Warn("the reason of the damage is not written", "file", name, "error", err)
	}
}

func (s *Store) loadWhy(q store.Querier) error {
	rows, err := q.Query("SELECT name, why FROM damaged")
	if err != nil {
		return err
	}
	for rows.Next() {
		var name, why string
		if err := rows.Scan(&name, &why); err != nil {
			return err
		}
		s.why[name] = why
	}
	return rows.Err()
}

// asides are the files that were set aside and are still in the folder.
func (s *Store) asides() ([]Damaged, error) {
	entries, err := os.ReadDir(s.opt.Dir)
	if err != nil {
		return nil, classify(s.opt.Dir, err)
	}
	var out []Damaged
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), asideSuffix) || !e.Type().IsRegular() {
			continue
		}
		a := Damaged{File: e.Name(), Day: NoDay}
		if date, _, _ := strings.Cut(e.Name(), "."); date != "state" {
			if t, err := time.Parse(time.DateOnly, date); err == nil {
				a.Day = DayOf(t)
			}
		}
		for _, suffix := range []string{"", "-wal"} {
			if fi, err := os.Stat(filepath.Join(s.opt.Dir, a.File+suffix)); err == nil {
				a.Bytes += fi.Size()
			}
		}
		s.mu.Lock()
		a.Reason = s.why[a.File]
		s.mu.Unlock()
		if a.Reason == "" {
			a.Reason = "it is not known any more"
		}
		out = append(out, a)
	}
	return out, nil
}

// removeAside removes what was set aside, when its day would be removed too.
func (s *Store) removeAside(a Damaged) error {
	var errs []error
	for _, suffix := range []string{"-shm", "-wal", ""} {
		if err := os.Remove(filepath.Join(s.opt.Dir, a.File+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return classify(filepath.Join(s.opt.Dir, a.File), errors.Join(errs...))
}

// renameAside gives a file and its SQLite logs a name with .damaged, and a
// number when there is one already.
func renameAside(path string) (name string, err error) {
	to := path + asideSuffix
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d%s", path, i, asideSuffix)
	}
	for _, suffix := range []string{"-shm", "-wal", ""} {
		if err := os.Rename(path+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return filepath.Base(to), nil
}
