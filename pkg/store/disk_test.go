package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

// smallDisk mounts a tmpfs of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+size); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("mounting needs CAP_SYS_ADMIN")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill uses up the space of dir and returns how to free it again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func wantDiskFull(t *testing.T, err error, dir string) {
	t.Helper()
	f := fault.From(err)
	if f.Code != fault.Unavailable || f.Reason != "disk_full" || !strings.Contains(f.Hint, dir) {
		t.Fatalf("got %#v (%v), want unavailable, disk_full, with the folder in the hint", f, err)
	}
}

func insertBig(db *store.DB, id int) error {
	return db.Write(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("INSERT INTO rows (id, body) VALUES (?, zeroblob(30000))", id)
		return err
	})
}

func TestDiskFullIsClearAndPasses(t *testing.T) {
	dir := smallDisk(t, "2m")
	path := filepath.Join(dir, "a.db")
	db := open(t, path)
	var want []int
	next := 0
	for range 3 { // full and free again, several times over
		free := fill(t, dir)
		for { // what the WAL has already allocated can still be used
			err := insertBig(db, next)
			next++
			if err != nil {
				wantDiskFull(t, err, dir)
				break
			}
			want = append(want, next-1)
		}
		for range 3 {
			err := insertBig(db, next)
			next++
			wantDiskFull(t, err, dir)
		}
		if d := cmp.Diff(want, ids(t, db)); d != "" {
			t.Fatal("read while full:", d)
		}
		free()
		if err := insertBig(db, next); err != nil {
			t.Fatalf("after space returned: %v", err)
		}
		want = append(want, next)
		next++
	}
	if d := cmp.Diff(want, ids(t, db)); d != "" {
		t.Fatal(d)
	}
	checkIntegrity(t, db)
}

// A write that is too big for the disk spills out of the cache and makes SQLite
// undo the whole transaction in the middle of it: those that shared it must not
// be told that they were done.
func TestDiskFullInTheMiddleOfASharedCommitLiesToNobody(t *testing.T) {
	dir := smallDisk(t, "4m")
	db := open(t, filepath.Join(dir, "a.db"))
	var done, refused atomic.Int32
	var mu sync.Mutex
	var want []int
	for round := range 10 {
		release := blocked(t, db)
		var wg sync.WaitGroup
		for i := range 9 {
			id := round*100 + i
			wg.Go(func() {
				err := db.Write(context.Background(), func(tx *store.Tx) error {
					if _, err := tx.Exec("INSERT INTO rows (id) VALUES (?)", id); err != nil {
						return err
					}
					if i != 4 {
						return nil
					}
					for n := range 200 {
						// The error is ignored on purpose: Write must find out itself.
						_, _ = tx.Exec("INSERT INTO rows (id, body) VALUES (?, zeroblob(60000))", 1_000_000+n)
					}
					return nil
				})
				if err == nil {
					done.Add(1)
					mu.Lock()
					want = append(want, id)
					mu.Unlock()
					return
				}
				refused.Add(1)
				wantReason(t, err, "disk_full")
			})
		}
		await(t, "nine queued writes", func() bool { return db.Waiting() == 9 })
		release()
		wg.Wait()
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(want)
	if d := cmp.Diff(want, ids(t, db)); d != "" {
		t.Fatal(d)
	}
	if refused.Load() < 10 || done.Load() == 0 {
		t.Fatalf("%d done, %d refused", done.Load(), refused.Load())
	}
	checkIntegrity(t, db)
}

func TestOpenOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, "1m")
	free := fill(t, dir)
	_, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "a.db"), Migrations: schema()})
	wantDiskFull(t, err, dir)
	free()
	if err := insert(open(t, filepath.Join(dir, "a.db")), 1); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t, "1m")
	path := filepath.Join(dir, "a.db")
	first, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if f := fault.From(err); f.Code != fault.Unavailable || f.Hint == "" {
		t.Fatalf("got %#v", f)
	}
}

func TestDamagedPagesAreReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := insertBig(db, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 2 * 4096; i < len(b); i++ {
		b[i] ^= 0xA5
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err = store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if err == nil {
		defer db.Close()
		err = db.Read(t.Context(), func(q store.Querier) error {
			return q.QueryRow("SELECT sum(length(body)) FROM rows").Scan(new(int))
		})
	}
	wantReason(t, err, "corrupt")
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	if got := fault.ReasonOf(err); got != reason {
		t.Errorf("got reason %q (%v), want %q", got, err, reason)
	}
}

func checkIntegrity(t *testing.T, db *store.DB) {
	t.Helper()
	var result string
	err := db.Read(context.Background(), func(q store.Querier) error {
		return q.QueryRow("PRAGMA integrity_check").Scan(&result)
	})
	if err != nil || result != "ok" {
		t.Fatalf("integrity check: %q, %v", result, err)
	}
}
