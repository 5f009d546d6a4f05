package logstore_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// overwrite puts random bytes into a file where it is, from one part of 100 of
// it to another.
func overwrite(t *testing.T, path string, from, to int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, fi.Size()*to/100-fi.Size()*from/100)
	_, _ = rand.Read(b)
	if _, err := f.WriteAt(b, fi.Size()*from/100); err != nil {
		t.Fatal(err)
	}
}

var damages = []struct {
	name   string
	damage func(t *testing.T, path string)
}{
	{"all random", func(t *testing.T, path string) { overwrite(t, path, 0, 100) }},
	{"first page random", func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 8192)
		_, _ = rand.Read(b)
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}},
	{"middle random", func(t *testing.T, path string) { overwrite(t, path, 20, 80) }},
	{"one bit in each page", func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 3*8192 + 4000; i < len(b); i += 8192 {
			b[i] ^= 0x40
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}},
	{"cut short", func(t *testing.T, path string) {
		fi, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, fi.Size()/2)
		}
		if err != nil {
			t.Fatal(err)
		}
	}},
	{"a text", func(t *testing.T, path string) {
		if err := os.WriteFile(path, []byte("not a database at all"), 0o600); err != nil {
			t.Fatal(err)
		}
	}},
	{"with its log", func(t *testing.T, path string) {
		overwrite(t, path, 0, 100)
		if _, err := os.Stat(path + "-wal"); err == nil {
			overwrite(t, path+"-wal", 0, 100)
		}
	}},
}

// wantAside wants one day set aside and told of.
func wantAside(t *testing.T, s *logstore.Store, day logstore.Day) {
	t.Helper()
	st, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := day.String() + ".db.damaged"
	if len(st.Aside) != 1 || st.Aside[0].File != name || st.Aside[0].Day != day || st.Aside[0].Reason == "" || strings.Contains(st.Aside[0].Reason, "not known") {
		t.Fatalf("set aside: %+v", st.Aside)
	}
	if !slices.Equal(st.Damaged, []string{name}) {
		t.Errorf("damaged: %q", st.Damaged)
	}
}

// everything reads all there is, so that damage is found; it may give rows of
// the damaged day that were read before.
func everything(t *testing.T, s *logstore.Store) {
	t.Helper()
	if err := s.Each(t.Context(), logquery.Query{}, func(logstore.Found) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedDayIsSetAsideAndTheOthersAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range damages {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %t", c.name, open), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				f := threeDays(t, logstore.Options{Dir: dir}, 9000)
				if err := f.s.Close(); err != nil {
					t.Fatal(err)
				}
				day := logstore.DayOf(base) + 1
				if open { // by readers and a writer
					f.s = openStore(t, logstore.Options{Dir: dir})
					f.append(t, []logline.Record{{Time: base.Add(40 * time.Hour), Message: "before"}})
					f.sort()
					f.check(t)
				}
				c.damage(t, filepath.Join(dir, "2026-03-02.db"))
				if !open {
					f.s = openStore(t, logstore.Options{Dir: dir})
				}
				everything(t, f.s)
				st, err := f.s.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(st.Aside) == 0 && open && strings.HasPrefix(c.name, "first page") {
					// The log may have that page too, and put it right.
					if err := f.s.Close(); err != nil {
						t.Fatal(err)
					}
					f.s = openStore(t, logstore.Options{Dir: dir})
					everything(t, f.s)
					if st, err = f.s.Status(t.Context()); err != nil {
						t.Fatal(err)
					}
					if len(st.Aside) == 0 {
						f.check(t)
						return
					}
				}
				f.have = slices.DeleteFunc(slices.Clone(f.have), func(r logstore.Found) bool { return logstore.DayOf(r.Record.Time) == day })
				f.check(t)
				wantAside(t, f.s, day)
				f.seq[day] = 0
				f.append(t, []logline.Record{{Time: base.Add(30 * time.Hour), Message: "new"}})
				f.sort()
				f.check(t)
				if err := f.s.Close(); err != nil {
					t.Fatal(err)
				}
				f.s = openStore(t, logstore.Options{Dir: dir})
				f.check(t)
				wantAside(t, f.s, day)
			})
		}
	}
}

// Rows come in for the day that is found damaged.
func TestAppendGoesOnWhenItsDayIsDamaged(t *testing.T) {
	t.Parallel()
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f := threeDays(t, logstore.Options{Dir: dir}, 9000)
			if err := f.s.Close(); err != nil {
				t.Fatal(err)
			}
			f.s = openStore(t, logstore.Options{Dir: dir})
			c.damage(t, filepath.Join(dir, "2026-03-03.db"))
			// It may take some appends, and a question about its content, until it is
			// found. What came in before goes with it.
			for i := range 5 {
				f.append(t, []logline.Record{{Time: base.Add(50*time.Hour + time.Duration(i)*time.Second), Message: "new"}})
			}
			everything(t, f.s)
			wantAside(t, f.s, logstore.DayOf(base)+2)
			if err := f.s.Append(t.Context(), numbered(logstore.FileID{Path: "/last"}, 0, 10, func(int) time.Time { return base.Add(51 * time.Hour) })); err != nil {
				t.Fatal(err)
			}
			got, err := f.s.Count(t.Context(), parse(t, "file=/last"), logstore.Limits{})
			if err != nil || got != 10 {
				t.Errorf("%d rows after the damage, %v", got, err)
			}
		})
	}
}

// A log that is overwritten while it is open does no harm where it was copied
// already; else the day is damaged. What SQLite says is not trusted.
func TestLogOfADayIsDamagedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := liveDays(t, logstore.Options{Dir: dir}, 3000)
	day := logstore.DayOf(base) + 2
	overwrite(t, filepath.Join(dir, "2026-03-03.db-wal"), 0, 100)
	f.seq[day] = 0
	n, err := f.s.Count(t.Context(), parse(t, "since=2026-03-03"), logstore.Limits{})
	if err != nil || n != 0 && n != 3000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	all := f.have
	if n == 0 {
		wantAside(t, f.s, day)
		f.have = all[:6000]
	}
	f.check(t)
}

// childHolds takes rows in that its log still has when it is killed: a reader
// keeps them from being copied.
func childHolds(dir string) error {
	ctx := context.Background()
	s, err := logstore.Open(ctx, logstore.Options{Dir: dir})
	if err != nil {
		return err
	}
	at := func(n int) time.Time { return base.Add(time.Duration(n)*time.Second + time.Duration(n%3)*24*time.Hour) }
	if err := s.Append(ctx, numbered(source, 0, 300, at)); err != nil {
		return err
	}
	for d := range 3 {
		db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, (logstore.DayOf(base)+logstore.Day(d)).String()+".db"))
		if err != nil {
			return err
		}
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		n := 0
		if err := tx.QueryRow("SELECT count(*) FROM mini").Scan(&n); err != nil {
			return err
		}
	}
	if err := s.Append(ctx, numbered(source, 300, 900, at)); err != nil {
		return err
	}
	if _, err := s.Retain(ctx); err != nil { // writes down where the days stand
		return err
	}
	fmt.Println("ready")
	select {}
}

func TestLogOfADayIsDamagedAfterAKill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		from, to int64
		damaged  bool
	}{
		{"untouched", 0, 0, false}, {"whole", 0, 100, true}, {"head", 0, 5, true}, {"middle", 45, 55, true}, {"removed", -1, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), childEnv+"=hold:"+dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if err != nil || line != "ready\n" {
				t.Fatalf("%q, %v", line, err)
			}
			day := logstore.DayOf(base) + 1
			log := filepath.Join(dir, day.String()+".db-wal")
			if c.from < 0 {
				if err := os.Remove(log); err != nil {
					t.Fatal(err)
				}
			} else {
				overwrite(t, log, c.from, c.to)
			}
			s := openStore(t, logstore.Options{Dir: dir})
			have := stored(t, s)
			want := 900
			if c.damaged {
				wantAside(t, s, day)
				want = 600
			}
			if len(have) != want {
				t.Errorf("%d rows, want %d", len(have), want)
			}
			if _, err := os.Stat(filepath.Join(dir, day.String()+".db.damaged")); errors.Is(err, os.ErrNotExist) == c.damaged {
				t.Error(err)
			}
		})
	}
}

// Connections that are kept know the whole file by heart.
func TestDamageIsFoundThoughNobodyMeetsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := threeDays(t, logstore.Options{Dir: dir}, 300)
	f.check(t)
	day := logstore.DayOf(base) + 1
	path := filepath.Join(dir, day.String()+".db")
	overwrite(t, path, 0, 100)
	if _, err := os.Stat(path + "-wal"); err == nil {
		overwrite(t, path+"-wal", 0, 100)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		st, err := f.s.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Aside) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never found")
		}
	}
	wantAside(t, f.s, day)
}
