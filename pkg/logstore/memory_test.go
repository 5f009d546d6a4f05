package logstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// memoryLimit is what the service may take, whatever it keeps.
const memoryLimit = 120 << 20

// inChild runs a part of a test in a process of its own, whose memory is its
// alone.
func inChild(t *testing.T, mode string) string {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+mode+":"+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func wantSmall(t *testing.T, out string) {
	t.Helper()
	kib := 0
	if _, err := fmt.Sscanf(out, "%d", &kib); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	t.Logf("at most %d MiB", kib>>10)
	if kib<<10 > memoryLimit {
		t.Errorf("the process took %d MiB, want at most %d", kib>>10, memoryLimit>>20)
	}
}

// peak prints the most memory that this process ever had, in KiB.
func peak() error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, b, ok := bytes.Cut(b, []byte("VmHWM:"))
	if !ok {
		return errors.New("no VmHWM")
	}
	b, _, _ = bytes.Cut(b, []byte("kB"))
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	fmt.Println(n)
	return err
}

// ask puts some questions at once, as the service allows.
func ask(ctx context.Context, s *logstore.Store, texts ...string) error {
	errs := make(chan error, 4)
	for k := range 4 {
		go func() {
			for i := range texts {
				q, err := logquery.Parse(texts[(i+k)%len(texts)], base)
				if err == nil {
					_, err = s.Query(ctx, q, logstore.Page{Oldest: k == 0}, logstore.Limits{Rows: 100})
				}
				if err == nil {
					_, err = s.Count(ctx, q, logstore.Limits{})
				}
				if err == nil {
					_, _, err = s.Top(ctx, q, logstore.Limits{}, "user", 10)
				}
				if err == nil {
					_, err = s.Histogram(ctx, q, logstore.Limits{}, 5*time.Minute, "level")
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var all []error
	for range 4 {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

var memoryQueries = []string{"", "service=auth level>=error", "p01234", "tor", "user=user77", "dur_ms>2990", `"in lane tor"`, "!service=auth event=lease*"}

// childFills takes many rows in and answers questions meanwhile.
func childFills(dir string) error {
	debug.SetGCPercent(50) // as every service does
	ctx := context.Background()
	s, err := logstore.Open(ctx, logstore.Options{Dir: dir})
	if err != nil {
		return err
	}
	rows := envInt("LOGSTORE_ROWS", 150_000)
	g, pos := newTraffic(), int64(0)
	for n := 0; n < rows; n += 4000 {
		b := logstore.Batch{File: source, From: pos}
		for range 4000 {
			pos += 280
			b.Rows = append(b.Rows, logstore.Row{Offset: pos, Record: g.next()})
		}
		b.To = pos
		if err := s.Append(ctx, b); err != nil {
			return err
		}
		if n/4000%100 == 30 {
			if err := ask(ctx, s, memoryQueries[n/4000/100%len(memoryQueries)]); err != nil {
				return err
			}
		}
	}
	if err := ask(ctx, s, memoryQueries...); err != nil {
		return err
	}
	if _, err := s.Retain(ctx); err != nil {
		return err
	}
	if err := peak(); err != nil {
		return err
	}
	return s.Close()
}

// TestMemory fills with LOGSTORE_ROWS rows.
func TestMemory(t *testing.T) { wantSmall(t, inChild(t, "memory")) }

// childManyDays has a file for each of 400 days, and asks about all of them.
func childManyDays(dir string) error {
	debug.SetGCPercent(50)
	ctx := context.Background()
	s, err := logstore.Open(ctx, logstore.Options{Dir: dir})
	if err != nil {
		return err
	}
	g := newTraffic()
	const days, each = 400, 20
	for d := range days {
		b := logstore.Batch{File: source, From: int64(d) * each, To: int64(d+1) * each}
		for i := range each {
			rec := g.next()
			rec.Time = base.Add(time.Duration(d)*24*time.Hour + time.Duration(i)*time.Second)
			b.Rows = append(b.Rows, logstore.Row{Offset: b.From + int64(i) + 1, Record: rec})
		}
		if err := s.Append(ctx, b); err != nil {
			return err
		}
	}
	if _, err := s.Retain(ctx); err != nil {
		return err
	}
	if st, err := s.Status(ctx); err != nil || len(st.Days) != days || st.Rows != days*each {
		return fmt.Errorf("%d days, %d rows, %w", len(st.Days), st.Rows, err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = logstore.Open(ctx, logstore.Options{Dir: dir}); err != nil {
		return err
	}
	if err := ask(ctx, s, "dur_ms>2990"); err != nil {
		return err
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	if len(open) > 150 {
		return fmt.Errorf("%d open files", len(open))
	}
	if err := peak(); err != nil {
		return err
	}
	return s.Close()
}

func TestMemoryOfManyDays(t *testing.T) { wantSmall(t, inChild(t, "days")) }
