package logtail_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logtail"
)

func TestLinesAsTheyCome(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	write(t, a, "one\ntwo\n\nhal")
	write(t, filepath.Join(dir, "b.gz"), "no\n")
	write(t, filepath.Join(dir, "b.log.1"), "no\n")
	k := newKeeper()
	stop := follow(t, k.options(dir))
	k.wants(t, "one", "two", "")
	write(t, a, "f")
	write(t, filepath.Join(dir, "new", "deep", "c.JSONL"), "c\n")
	k.wants(t, "one", "two", "", "c")
	write(t, a, "\nfour\n")
	k.wants(t, "one", "two", "", "c", "half", "four")
	stop()
	write(t, a, "five\nsi")
	stop = follow(t, k.options(dir))
	k.wants(t, "one", "two", "", "c", "half", "four", "five")
	write(t, a, "x\n")
	k.wants(t, "one", "two", "", "c", "half", "four", "five", "six")
	stop()
}

func TestLongLines(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	exact := strings.Repeat("e", logtail.MaxLine)
	over := strings.Repeat("o", logtail.MaxLine+1)
	huge := strings.Repeat("h", 5*logtail.MaxLine)
	write(t, a, strings.Repeat("m", 300<<10)+"\n"+exact+"\n"+over+"\n"+huge)
	k := newKeeper()
	opts := k.options(dir)
	stop := follow(t, opts)
	want := []string{strings.Repeat("m", 300<<10), exact, over[:logtail.MaxLine]}
	k.wants(t, want...)
	stop() // in the middle of the huge line
	stop = follow(t, k.options(dir))
	write(t, a, "hh\nend\n")
	k.wants(t, append(want, huge[:logtail.MaxLine], "end")...)
	stop()
	if k.cut != 2 {
		t.Errorf("got %d lines marked as cut, want 2", k.cut)
	}
}

func TestRotation(t *testing.T) {
	for name, c := range map[string]struct {
		running, down bool
		rotate        func(t *testing.T, a string)
		want          []string
	}{
		"renamed, then written to": {true, true, func(t *testing.T, a string) {
			must(t, os.Rename(a, a+".1"))
			write(t, a+".1", "late\n")
			write(t, a, "next\n")
		}, []string{"late", "next"}},
		"renamed twice with a half line": {true, true, func(t *testing.T, a string) {
			write(t, a, "half")
			must(t, os.Rename(a, a+".1"))
			must(t, os.Rename(a+".1", a+".2"))
			write(t, a, "next\n")
		}, []string{"half", "next"}},
		"copied and truncated, the copy has more": {true, true, func(t *testing.T, a string) {
			write(t, a, "late\n")
			copyFile(t, a, a+".1")
			must(t, os.Truncate(a, 0))
			write(t, a, "next\n")
		}, []string{"late", "next"}},
		"copied and truncated to a longer one": {true, true, func(t *testing.T, a string) {
			copyFile(t, a, a+".1")
			must(t, os.Truncate(a, 0))
			write(t, a, strings.Repeat("longer\n", 3))
		}, []string{"longer", "longer", "longer"}},
		"written over with the same size": {true, true, func(t *testing.T, a string) {
			must(t, os.WriteFile(a, []byte("ONE\nTWO\n"), 0o644))
		}, []string{"ONE", "TWO"}},
		"same beginning, same size, other end": {true, false, func(t *testing.T, a string) {
			must(t, os.WriteFile(a, []byte("one\nTWO\n"), 0o644))
		}, []string{"one", "TWO"}},
		"truncated under a writer that does not append": {true, true, func(t *testing.T, a string) {
			f, err := os.OpenFile(a, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("late\n"), 8)
			must(t, err)
			copyFile(t, a, a+".1")
			must(t, os.Truncate(a, 0))
			_, err = f.WriteAt([]byte("next\n"), 200_000)
			must(t, err)
		}, []string{"late", "next"}},
		"replaced by rename": {true, true, func(t *testing.T, a string) {
			write(t, a+".tmp", "next\n")
			must(t, os.Rename(a+".tmp", a))
		}, []string{"next"}},
		"deleted with lines unread and a half one": {true, false, func(t *testing.T, a string) {
			write(t, a, "late\nhalf")
			must(t, os.Remove(a))
			write(t, a, "next\n")
		}, []string{"half", "late", "next"}},
		"moved away": {true, false, func(t *testing.T, a string) {
			write(t, a, "late\n")
			must(t, os.Rename(a, filepath.Join(filepath.Dir(filepath.Dir(a)), "away.log")))
			write(t, a, "next\n")
		}, []string{"late", "next"}},
	} {
		for _, when := range []string{"running", "down"} {
			if when == "running" && !c.running || when == "down" && !c.down {
				continue
			}
			t.Run(name+"/"+when, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "logs")
				a := filepath.Join(dir, "a.log")
				write(t, a, "one\ntwo\n")
				k := newKeeper()
				stop := follow(t, k.options(dir))
				k.wants(t, "one", "two")
				if when == "down" {
					stop()
				}
				c.rotate(t, a)
				if when == "down" {
					stop = follow(t, k.options(dir))
				}
				until(t, "all lines", func() bool { return len(k.all()) >= 2+len(c.want) })
				write(t, a, "last\n")
				until(t, "the last line", func() bool { return k.has("last") })
				stop()
				want := map[string]int{"one": 1, "two": 1, "last": 1}
				for _, l := range c.want {
					want[l]++
				}
				for l, n := range want {
					if k.count[l] != n {
						t.Errorf("%q came %d times, want %d", l, k.count[l], n)
					}
				}
				if len(k.count) != len(want) {
					t.Errorf("got %q", k.lines)
				}
				if len(k.wrong) > 0 {
					t.Error(k.wrong)
				}
				for path := range k.named {
					if path != a {
						t.Errorf("lines under the name %s", path)
					}
				}
				stop = follow(t, k.options(dir))
				write(t, a, "again\n")
				until(t, "a line after another start", func() bool { return k.has("again") })
				stop()
				if got := len(k.lines); got != len(c.want)+4 {
					t.Errorf("another start gave %d lines, want %d: %q", got, len(c.want)+4, k.lines)
				}
			})
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o644))
}

// A deleted file's inode number may go to the next file at once.
func TestInodeReused(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	k := newKeeper()
	want := []string{}
	for i := range 5 {
		line := strings.Repeat("same", i+1)
		write(t, a, "head\n"+line+"\n")
		stop := follow(t, k.options(dir))
		want = append(want, "head", line)
		k.wants(t, want...)
		stop()
		must(t, os.Remove(a))
	}
	stop := follow(t, k.options(dir))
	until(t, "positions forgotten", func() bool { return len(k.positions()) == 0 })
	stop()
}

func TestDirectoriesComeAndGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	k := newKeeper()
	opts := k.options(dir)
	opts.Rescan = 20 * time.Millisecond
	stop := follow(t, opts)
	var want []string
	for i := range 5 {
		line := strings.Repeat("x", i+1)
		want = append(want, line)
		write(t, filepath.Join(dir, "sub", "a.log"), line+"\n")
		k.wants(t, want...)
		must(t, os.RemoveAll(dir))
	}
	write(t, filepath.Join(dir, "sub", "a.log"), "before\n")
	k.wants(t, append(want, "before")...)
	must(t, os.Rename(filepath.Join(dir, "sub"), filepath.Join(dir, "bus")))
	write(t, filepath.Join(dir, "bus", "a.log"), "after\n")
	k.wants(t, append(want, "before", "after")...)
	stop()
}

func TestSinkThatFailsLosesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.log"), "one\ntwo\n")
	k := newKeeper()
	opts := k.options(dir)
	calls := 0
	opts.Sink = func(ctx context.Context, c []logtail.Chunk) error {
		if calls++; calls < 4 {
			return errors.New("no space left")
		}
		return k.sink(ctx, c)
	}
	stop := follow(t, opts)
	until(t, "the refusal to show", func() bool { return opts.Stats.Snapshot().SinkError != "" })
	k.wants(t, "one", "two")
	until(t, "the refusal to end", func() bool { s := opts.Stats.Snapshot(); return s.SinkError == "" && s.Lines == 2 })
	stop()
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []logtail.Options{{}, {Dirs: []string{"rel"}}, {Dirs: []string{"/x"}, Refuse: []string{"rel"}}} {
		if err := logtail.Run(context.Background(), o); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: got %v, want invalid", o, err)
		}
	}
}
