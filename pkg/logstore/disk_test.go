package logstore_test

import (
	"context"
	"errors"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+size); err != nil {
		t.Skip("mounting needs CAP_SYS_ADMIN: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves at most so many bytes of a disk free.
func fill(t *testing.T, dir string, free int) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := int64(0)
	for err == nil {
		var k int
		k, err = f.Write(make([]byte, 4096))
		n += int64(k)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(max(0, n-int64(free))); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func wantDiskFull(t *testing.T, err error) {
	t.Helper()
	f := fault.From(err)
	if f.Code != fault.Unavailable || f.Reason != "disk_full" || f.Hint == "" {
		t.Fatalf("got %#v: %v", f, err)
	}
}

func TestDiskFullLosesNothingAndGoesOn(t *testing.T) {
	t.Parallel()
	for _, several := range []bool{false, true} {
		t.Run("rows of several days "+strconv.FormatBool(several), func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, "24m")
			s := openStore(t, logstore.Options{Dir: filepath.Join(disk, "logs")})
			r := mrand.New(mrand.NewPCG(9, 9))
			n := 0
			ids := map[logstore.ID]bool{}
			batch := func() logstore.Batch {
				b := numbered(source, n, n+500, func(i int) time.Time {
					if several && i%500 == 400 {
						return base.Add(48*time.Hour + time.Duration(i)*time.Second)
					}
					return base.Add(time.Duration(i) * time.Second)
				})
				for i := range b.Rows {
					rec := record(r, b.Rows[i].Record.Time)
					rec.Fields = append(rec.Fields, logline.Field{Key: "n", Value: b.Rows[i].Record.Message})
					b.Rows[i].Record = rec
				}
				return b
			}
			took := func(b logstore.Batch) {
				t.Helper()
				for _, row := range b.Rows {
					if !row.New || ids[row.ID] {
						t.Fatalf("row at %d: new %t, id %v", row.Offset, row.New, row.ID)
					}
					ids[row.ID] = true
				}
				n += 500
			}
			for round := range 3 {
				empty := fill(t, disk, (4-round)<<20)
				b := batch()
				err := s.Append(t.Context(), b)
				for ; err == nil; err = s.Append(t.Context(), b) {
					took(b)
					b = batch()
				}
				wantDiskFull(t, err)
				for range 3 { // unless copying a log made some room
					if err := s.Append(t.Context(), b); err != nil {
						wantDiskFull(t, err)
						continue
					}
					took(b)
					b = batch()
				}
				if _, err := s.Query(t.Context(), logquery.Query{}, logstore.Page{}, logstore.Limits{Rows: 10}); err != nil {
					t.Fatal("a query while the disk is full:", err)
				}
				got, err := s.Count(t.Context(), logquery.Query{}, logstore.Limits{})
				if err != nil || int(got) < n || int(got) > n+500 {
					t.Fatalf("%d rows while the disk is full, %d are acknowledged, %v", got, n, err)
				}
				empty()
				if err := s.Append(t.Context(), b); err != nil {
					t.Fatal("after space returned:", err)
				}
				took(b)
			}
			settled := s.Settle(t.Context()) // may tell of an attempt that was made on the full disk
			for deadline := time.Now().Add(time.Minute); settled != nil && time.Now().Before(deadline); {
				settled = s.Settle(t.Context())
			}
			if settled != nil {
				t.Fatal(settled)
			}
			if _, err := s.Retain(t.Context()); err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			err := s.Each(t.Context(), logquery.Query{}, func(f logstore.Found) error {
				v, _ := f.Record.Get("n")
				seen[v]++
				if !ids[f.ID] {
					t.Errorf("id %v was not told", f.ID)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if seen[strconv.Itoa(i)] != 1 {
					t.Fatalf("row %d is there %d times", i, seen[strconv.Itoa(i)])
				}
			}
			if len(seen) != n {
				t.Fatalf("%d rows, want %d", len(seen), n)
			}
			if st, err := s.Status(t.Context()); err != nil || len(st.Aside) > 0 {
				t.Fatalf("%+v, %v", st.Aside, err)
			}
		})
	}
}

// Days that nobody has open answer too, and old days can be removed: that is
// what makes room.
func TestOldDaysOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "24m")
	dir := filepath.Join(disk, "logs")
	f := threeDays(t, logstore.Options{Dir: dir}, 3000)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	now := base.Add(72 * time.Hour)
	f.s = openStore(t, logstore.Options{Dir: dir, MaxAge: 30 * time.Hour, Now: func() time.Time { return now }})
	empty := fill(t, disk, 0)
	f.check(t)
	st, err := f.s.Status(t.Context())
	if err != nil || st.Rows != 9000 || len(st.Aside) > 0 {
		t.Fatalf("%d rows, %+v, %v", st.Rows, st.Aside, err)
	}
	b := numbered(logstore.FileID{Path: "/new"}, 0, 10, func(n int) time.Time { return now })
	wantDiskFull(t, f.s.Append(t.Context(), b))
	days, err := f.s.Retain(t.Context())
	if len(days) != 1 || err != nil && fault.ReasonOf(err) != "disk_full" { // there may not be room to finish the others
		t.Fatalf("removed %v, %v", days, err)
	}
	empty()
	if err := f.s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for i := range b.Rows {
		if !b.Rows[i].New {
			t.Errorf("row %d is not new", i)
		}
	}
}

// Who needs space can purge whole days, which needs none.
func TestFullDiskWholeDaysCanBePurged(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "24m")
	dir := filepath.Join(disk, "logs")
	f := threeDays(t, logstore.Options{Dir: dir}, 3000)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	now := base.Add(72 * time.Hour)
	f.s = openStore(t, logstore.Options{Dir: dir, Now: func() time.Time { return now }})
	fill(t, disk, 0)
	q := logquery.Query{Until: (logstore.DayOf(base) + 1).Time()}
	before, err := f.s.Count(t.Context(), logquery.Query{}, logstore.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	days, err := f.s.Purge(t.Context(), q, false)
	if err != nil || len(days) != 1 || days[0].Rows == 0 {
		t.Fatalf("purged %v, %v", days, err)
	}
	after, err := f.s.Count(t.Context(), logquery.Query{}, logstore.Limits{})
	if err != nil || after != before-days[0].Rows {
		t.Errorf("%d rows are left of %d, %v", after, before, err)
	}
	if n, err := f.s.Count(t.Context(), q, logstore.Limits{}); n != 0 || err != nil {
		t.Errorf("%d rows of the day, %v", n, err)
	}
}

// Rows that cannot be indexed for want of space make Append say so when too many
// wait; it does not wait without a word.
func TestFullDiskWhileRowsWaitIsTold(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "64m")
	s := openStore(t, logstore.Options{Dir: filepath.Join(disk, "logs")})
	fill(t, disk, 1<<20)
	filler := filepath.Join(disk, "filler")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := mrand.New(mrand.NewPCG(3, 9))
	n, refused := 0, 0
	for n < 45_000 {
		b := numbered(source, n, n+200, func(i int) time.Time { return base.Add(time.Duration(i) * time.Millisecond) })
		for i := range b.Rows {
			b.Rows[i].Record = record(r, b.Rows[i].Record.Time)
		}
		err := s.Append(ctx, b)
		for ; err != nil; err = s.Append(ctx, b) {
			wantDiskFull(t, err)
			refused++
			// As much as the rows need, but not their index.
			fi, err := os.Stat(filler)
			if err == nil {
				err = os.Truncate(filler, max(0, fi.Size()-64<<10))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		n += 200
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
	got, err := s.Count(t.Context(), logquery.Query{}, logstore.Limits{})
	if err != nil || int(got) != n {
		t.Fatalf("%d rows, %d are acknowledged, %v", got, n, err)
	}
	if err := os.Remove(filler); err != nil { // closing writes positions
		t.Fatal(err)
	}
}
