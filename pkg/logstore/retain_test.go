package logstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

func TestSizeNeverTakesWhatHappensNow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := base.Add(36 * time.Hour) // the second day; the third is of clocks that are ahead
	f := threeDays(t, logstore.Options{Dir: dir, MaxBytes: 1, Now: func() time.Time { return now }}, 2000)
	st, err := f.s.Status(t.Context())
	if err != nil || st.Over <= 0 || st.Over >= st.Bytes {
		t.Fatalf("over by %d of %d, %v", st.Over, st.Bytes, err)
	}
	gone, err := f.s.Retain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "removed", gone, []logstore.Day{logstore.DayOf(base)})
	f.have = f.have[2000:]
	f.check(t)
	if st, err = f.s.Status(t.Context()); err != nil || st.Over <= 0 {
		t.Fatalf("over by %d, %v", st.Over, err)
	}
}

// Removing does not wait for questions that take long, and they end without an
// error.
func TestRemovingADayThatIsBeingRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := base.Add(60 * time.Hour)
	f := threeDays(t, logstore.Options{Dir: dir, MaxAge: 30 * time.Hour, Now: func() time.Time { return now }}, 2000)
	ctx := t.Context()
	inside, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error)
	go func() {
		n := 0
		ended <- f.s.Each(ctx, logquery.Query{}, func(logstore.Found) error {
			if n++; n == 1 {
				close(inside)
				<-release
			}
			return nil
		})
	}()
	<-inside
	if gone, err := f.s.Retain(ctx); err != nil || len(gone) != 1 {
		t.Fatal(gone, err)
	}
	f.seq[logstore.DayOf(base)] = 0
	f.have = f.have[2000:]
	f.append(t, []logline.Record{{Time: base, Message: "late"}}) // a new file of the same name
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	f.sort()
	f.check(t)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	f.s = openStore(t, logstore.Options{Dir: dir})
	f.check(t)
}

func TestDamagedFilesGoWithTheirDay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := base.Add(60 * time.Hour)
	f := threeDays(t, logstore.Options{Dir: dir}, 2000)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "2026-03-01.db")
	overwrite(t, path, 0, 100)
	f.s = openStore(t, logstore.Options{Dir: dir, MaxAge: 30 * time.Hour, Now: func() time.Time { return now }})
	everything(t, f.s)
	wantAside(t, f.s, logstore.DayOf(base))
	if _, err := f.s.Retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".damaged"); !os.IsNotExist(err) {
		t.Error("the damaged file is still there:", err)
	}
	if st, err := f.s.Status(t.Context()); err != nil || len(st.Aside) > 0 {
		t.Errorf("%+v, %v", st.Aside, err)
	}
	f.have = f.have[2000:]
	f.check(t)
}
