package logtail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func testOptions(dir string, sink func([]Chunk)) Options {
	return Options{
		Dirs: []string{dir}, Rescan: time.Hour, Stats: new(Stats), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Sink: func(_ context.Context, c []Chunk) error { sink(c); return nil },
	}
}

func background(t *testing.T, tl *tailer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tl.run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		tl.close()
	}
	return stop
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(60*time.Second), time.NewTicker(3*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		_ = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// However much lies in the files, and whatever the lines are, what is in memory
// stays below 8 MiB while the sink is stuck.
func TestMemoryWhileTheSinkIsSlow(t *testing.T) {
	for name, line := range map[string]string{"short": "s\n", "usual": strings.Repeat("u", 200) + "\n", "longest": strings.Repeat("l", MaxLine) + "\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			const files, size = 4, 3 << 20
			text := strings.Repeat(line, max(2, size/len(line)))
			for i := range files {
				put(t, filepath.Join(dir, fmt.Sprint(i, ".log")), text)
			}
			want := int64(files * strings.Count(text, "\n"))
			step := make(chan struct{})
			var worst, lines atomic.Int64
			var stats *Stats
			opts := testOptions(dir, func(chunks []Chunk) {
				<-step
				held := 0
				for _, c := range chunks {
					lines.Add(int64(len(c.Lines)))
					for _, l := range c.Lines {
						held += len(l) + 33 // a slice header, an offset, a mark
					}
				}
				worst.Store(max(worst.Load(), int64(held)))
			})
			stats = opts.Stats
			stop := background(t, newTailer(opts))
			waitFor(t, "reading to pause", func() bool { return stats.Snapshot().Paused > 50*time.Millisecond })
			if got := lines.Load(); got != 0 {
				t.Errorf("%d lines passed a stuck sink", got)
			}
			if got := stats.Snapshot().InFlight; got < 3<<20 || got > 8<<20 {
				t.Errorf("%d bytes in flight while stuck", got)
			}
			close(step)
			waitFor(t, "all lines", func() bool { return stats.Snapshot().Lines == want })
			stop()
			if got := stats.Snapshot().PeakInFlight; got > 8<<20 {
				t.Errorf("%d bytes in flight", got)
			}
			if worst.Load() > 4<<20 {
				t.Errorf("a batch of %d bytes", worst.Load())
			}
		})
	}
}

func TestThousandsOfFilesWithFewDescriptors(t *testing.T) {
	dir := t.TempDir()
	const files, few = 3000, 50
	for i := range files {
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(i/100)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := func(i int) string { return filepath.Join(dir, fmt.Sprint(i/100), fmt.Sprint(i, ".log")) }
	count := map[string]int{}
	most := 0
	var opts Options
	opts = testOptions(dir, func(chunks []Chunk) {
		for _, c := range chunks {
			for _, l := range c.Lines {
				count[string(l)]++
			}
		}
		most = max(most, opts.Stats.Snapshot().Open)
	})
	for i := range files / 2 {
		put(t, path(i), fmt.Sprintf("a %d\nhalf", i))
	}
	tl := newTailer(opts)
	tl.maxOpen = few
	stop := background(t, tl)
	waitFor(t, "first half", func() bool { return opts.Stats.Snapshot().Lines == files/2 })
	for i := range files {
		put(t, path(i), fmt.Sprintf("b %d\n", i))
	}
	waitFor(t, "all", func() bool { return opts.Stats.Snapshot().Lines == files/2+files })
	for i := range files { // renamed while closed, then written to
		if i%3 == 0 {
			if err := os.Rename(path(i), path(i)+".1"); err != nil {
				t.Fatal(err)
			}
			put(t, path(i)+".1", fmt.Sprintf("c %d\n", i))
		}
	}
	waitFor(t, "the renamed", func() bool { return opts.Stats.Snapshot().Lines == files/2+files+files/3 })
	stop()
	for i := range files {
		b := fmt.Sprintf("b %d", i)
		if i < files/2 {
			b = "half" + b
			if count[fmt.Sprintf("a %d", i)] != 1 {
				t.Fatalf("line a of %d", i)
			}
		}
		if count[b] != 1 || i%3 == 0 && count[fmt.Sprintf("c %d", i)] != 1 {
			t.Fatalf("file %d: %d %d", i, count[b], count[fmt.Sprintf("c %d", i)])
		}
	}
	if len(count) != files/2+files+files/3 {
		t.Errorf("%d different lines", len(count))
	}
	if most > few+1 {
		t.Errorf("%d descriptors open, want about %d", most, few)
	}
}

// The kernel's queue runs over while nobody takes events from it.
func TestKernelQueueRunsOver(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || limit > 100_000 {
		t.Skipf("a queue of %q events takes long to fill", b)
	}
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	put(t, a, "one\n")
	opts := testOptions(dir, func([]Chunk) {})
	tl := newTailer(opts)
	tl.start()
	for i := 0; i < limit+10_000; i += 2 {
		// Two names by turns, since equal events in a row are one.
		put(t, filepath.Join(dir, "noise.bin"), "x")
		put(t, filepath.Join(dir, "noise2.bin"), "x")
	}
	put(t, a, "two\n")
	put(t, filepath.Join(dir, "new.log"), "three\n")
	stop := background(t, tl)
	waitFor(t, "lines whose events were lost", func() bool { return opts.Stats.Snapshot().Lines == 3 })
	waitFor(t, "the overflow to be counted", func() bool { return opts.Stats.Snapshot().Overflows > 0 })
	stop()
}

func TestInboxIsBounded(t *testing.T) {
	in, err := newInbox(new(Stats))
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	for i := range 3 * inboxMax {
		in.put(fmt.Sprint(i), "")
	}
	paths, all := in.take()
	if len(paths) > inboxMax+1 || !all {
		t.Errorf("got %d paths, all %v", len(paths), all)
	}
	if paths, all = in.take(); len(paths) != 0 || all {
		t.Errorf("got %d paths, all %v after taking", len(paths), all)
	}
}

// Identities of files that are deleted or truncated are given back, so that
// positions do not pile up.
func TestIdentitiesAreGivenBack(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	var gone atomic.Int64
	ids := make(chan FileID, 100)
	opts := testOptions(dir, func(chunks []Chunk) {
		for _, c := range chunks {
			ids <- c.File
		}
	})
	fail := true
	opts.Gone = func(_ context.Context, list []FileID) error {
		if fail = !fail; !fail {
			return errors.New("not now")
		}
		gone.Add(int64(len(list)))
		return nil
	}
	tl := newTailer(opts)
	tl.lingerDeleted = 10 * time.Millisecond
	stop := background(t, tl)
	put(t, a, "one\n")
	first := <-ids
	if err := os.WriteFile(a, []byte("two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if second := <-ids; second == first || second.Name() != a {
		t.Errorf("got %v after %v", second, first)
	}
	waitFor(t, "the first life to be given back", func() bool { return gone.Load() == 1 })
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the second life to be given back", func() bool { return gone.Load() == 2 })
	stop()
	if s := opts.Stats.Snapshot(); s.Deletions != 1 || s.Truncations != 1 || len(s.Files) != 0 || s.Open != 0 {
		t.Errorf("got %+v", s)
	}
}

// A last line without an end is taken when nobody has the file open for writing
// any more: nobody will end it. While somebody has, it waits, however long.
func TestLastLineWithoutAnEnd(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	lines := make(chan string, 100)
	opts := testOptions(dir, func(chunks []Chunk) {
		for _, c := range chunks {
			for _, l := range c.Lines {
				lines <- string(l)
			}
		}
	})
	want := func(want string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q never came", want)
		}
	}
	w, err := os.OpenFile(a, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("one\nhal"); err != nil {
		t.Fatal(err)
	}
	tl := newTailer(opts)
	tl.idle = time.Millisecond
	stop := background(t, tl)
	want("one")
	put(t, filepath.Join(dir, "b.log"), "goodbye") // its writer is gone
	want("goodbye")
	if _, err := w.WriteString("f\npanic: the end"); err != nil {
		t.Fatal(err)
	}
	want("half")
	_ = w.Close()
	want("panic: the end")
	put(t, a, "next\n")
	want("next")
	stop()
}

func FuzzMark(f *testing.F) {
	f.Add("/a.log#0.0.0.0000000000000000")
	f.Add("/a#b.log")
	f.Add(FileID{1, 2, "/x" + mark{-5, 3, 1024, ^uint64(0)}.String()}.Path)
	f.Fuzz(func(t *testing.T, path string) {
		name, m, ok := splitMark(path)
		if ok && name+m.String() != path || !ok && name != path {
			t.Errorf("%q: got %q %+v %v", path, name, m, ok)
		}
	})
}
