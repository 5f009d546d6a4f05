package logtail_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A folder is moved with all that is below it: lines in its subfolders are seen
// at once, not at the next rescan.
func TestMovedFolderIsStillWatched(t *testing.T) {
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	k := newKeeper()
	write(t, at("one", "deep", "a.log"), "first\n")
	follow(t, k.options(dir)) // its rescan is an hour away
	want := []string{"first"}
	k.wants(t, want...)
	for i := range 20 {
		from, to := at("one"), at("two")
		if i%2 == 1 {
			from, to = to, from
		}
		must(t, os.Rename(from, to))
		for _, name := range []string{"a.log", "new.log"} {
			line := fmt.Sprint(name, i)
			write(t, filepath.Join(to, "deep", name), line+"\n")
			want = append(want, line)
			k.wants(t, want...)
		}
	}
}

// A folder is deleted and made again at once, and may get the same number: what
// comes later in it is seen at once.
func TestFolderMadeAgainIsWatched(t *testing.T) {
	dir := t.TempDir()
	k := newKeeper()
	follow(t, k.options(dir))
	var want []string
	for i := range 30 {
		sub := filepath.Join(dir, "sub")
		must(t, os.RemoveAll(sub))
		must(t, os.Mkdir(sub, 0o755))
		for _, word := range []string{"first", "second"} {
			line := fmt.Sprint(word, i)
			write(t, filepath.Join(sub, "a.log"), line+"\n")
			want = append(want, line)
			k.wants(t, want...)
		}
	}
}

// Somebody who may write to a log folder makes a file there, then puts a link to
// a folder of secrets in the place of its folder: nothing of them is read.
func TestFolderReplacedByALinkToSecrets(t *testing.T) {
	dir, secrets := t.TempDir(), t.TempDir()
	sub := filepath.Join(dir, "sub")
	write(t, filepath.Join(secrets, "a.log"), "secret\n")
	write(t, filepath.Join(secrets, "deep", "b.log"), "secret\n")
	write(t, filepath.Join(sub, "a.log"), "one\n")
	write(t, filepath.Join(sub, "deep", "b.log"), "two\n")
	k := newKeeper()
	opts := k.options(dir)
	opts.Rescan = 10 * time.Millisecond
	stop := follow(t, opts)
	until(t, "what was there", func() bool { return k.has("one") && k.has("two") })
	for i := range 20 {
		must(t, os.Rename(sub, sub+".away"))
		must(t, os.Symlink(secrets, sub))
		line := fmt.Sprint("kept", i)
		write(t, filepath.Join(sub+".away", "deep", "b.log"), line+"\n")
		until(t, line, func() bool { return k.has(line) })
		skipped := opts.Stats.Snapshot().Skipped
		if len(skipped) > 0 && (skipped[0].Path != sub || skipped[0].Reason != "symbolic link") {
			t.Fatalf("got %v", skipped)
		}
		must(t, os.Remove(sub))
		must(t, os.Rename(sub+".away", sub))
	}
	write(t, filepath.Join(sub, "a.log"), "back\n")
	until(t, "the folder that came back", func() bool { return k.has("back") })
	stop()
	if k.has("secret") || k.count["one"] != 1 || k.count["two"] != 1 {
		t.Errorf("got %q", k.lines)
	}
}

// What is refused is refused by every path to it.
func TestRefusedByAnotherPath(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("data/state/exports/deep/e.jsonl"), "exported\n")
	write(t, at("logs/a.log"), "one\n")
	must(t, os.Symlink(at("data"), at("var")))
	must(t, os.Mkdir(at("logs/bound"), 0o755))
	dirs := []string{at("logs"), at("data/state/exports"), at("var/state")}
	if err := unix.Mount(at("data/state/exports/deep"), at("logs/bound"), "", unix.MS_BIND, ""); err == nil {
		t.Cleanup(func() { must(t, unix.Unmount(at("logs/bound"), unix.MNT_DETACH)) })
	} else {
		t.Logf("no bind mount: %v", err)
	}
	k := newKeeper()
	opts := k.options(dirs...)
	opts.Refuse = []string{at("var/state")}
	opts.Rescan = 20 * time.Millisecond
	stop := follow(t, opts)
	k.wants(t, "one")
	write(t, at("data/state/exports/deep/f.jsonl"), "exported\n")
	write(t, at("logs/a.log"), "two\n")
	k.wants(t, "one", "two")
	stop()
	if k.has("exported") {
		t.Errorf("got %q", k.lines)
	}
}

// The service was down while a log was rotated twice: the file between is not
// known by number, and its name is not one that is followed.
func TestRotatedTwiceWhileDown(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	write(t, a, "one\n")
	k := newKeeper()
	stop := follow(t, k.options(dir))
	k.wants(t, "one")
	// Copies that somebody made are none of this.
	copyFile(t, a, a+".3")
	copyFile(t, a, a+".0")
	write(t, a, "two\n")
	k.wants(t, "one", "two")
	stop()
	write(t, a, "three\n")
	aWhile(t, dir)
	must(t, os.Rename(a, a+".1"))
	write(t, a, "four\n")
	aWhile(t, dir)
	must(t, os.Rename(a+".3", a+".4"))
	must(t, os.Rename(a+".1", a+".5"))
	must(t, os.Rename(a, a+".1"))
	copyFile(t, a+".5", a+".9")
	write(t, a, "five\n")
	stop = follow(t, k.options(dir))
	until(t, "all", func() bool { return len(k.all()) >= 5 })
	write(t, a, "six\n")
	until(t, "the last", func() bool { return k.has("six") })
	stop()
	for _, w := range []string{"one", "two", "three", "four", "five", "six"} {
		if k.count[w] != 1 {
			t.Errorf("%s came %d times", w, k.count[w])
		}
	}
	if len(k.named) != 1 || len(k.lines) != 6 {
		t.Errorf("got %v", k.named)
	}
	stop = follow(t, k.options(dir))
	write(t, a, "seven\n")
	until(t, "a line after another start", func() bool { return k.has("seven") })
	stop()
	if len(k.lines) != 7 {
		t.Errorf("another start gave %q", k.lines)
	}
}

// aWhile waits until the file system's clock has gone on.
func aWhile(t *testing.T, dir string) {
	t.Helper()
	stamp := func() time.Time {
		path := filepath.Join(dir, "clock")
		must(t, os.WriteFile(path, nil, 0o644))
		info, err := os.Stat(path)
		must(t, err)
		return info.ModTime()
	}
	first := stamp()
	until(t, "the clock to go on", func() bool { return stamp().Sub(first) > 10*time.Millisecond })
	must(t, os.Remove(filepath.Join(dir, "clock")))
}

// A file is made, written and rotated twice faster than anybody looks.
func TestRotatedBeforeAnybodyLooked(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	k := newKeeper()
	stop := follow(t, k.options(dir))
	write(t, filepath.Join(dir, "ready.log"), "ready\n")
	k.wants(t, "ready")
	const n = 300
	for i := range n {
		write(t, a, fmt.Sprintf("line %d\n", i))
		must(t, os.Rename(a, a+".1"))
		must(t, os.Rename(a+".1", fmt.Sprintf("%s.%d", a, i+2)))
	}
	write(t, filepath.Join(dir, "no.1"), "no\n")
	must(t, os.Rename(filepath.Join(dir, "no.1"), filepath.Join(dir, "no.2")))
	until(t, "all lines", func() bool { return len(k.all()) > n })
	stop()
	for i := range n {
		if l := fmt.Sprintf("line %d", i); k.count[l] != 1 {
			t.Errorf("%s came %d times", l, k.count[l])
		}
	}
	if k.has("no") || len(k.named) != 2 {
		t.Errorf("lines under the names of %d files", len(k.named))
	}
}

// The last bytes of a file are cut off, as by a writer that mends its file: what
// was read before does not come again.
func TestFileLosesItsLastBytes(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	k := newKeeper()
	long := strings.Repeat("long ", 10)
	write(t, a, "one\n"+long+"\nthree\n")
	opts := k.options(dir)
	stop := follow(t, opts)
	want := []string{"one", long, "three"}
	k.wants(t, want...)
	must(t, os.Truncate(a, int64(4+len(long)+1+2)))
	until(t, "the loss to be seen", func() bool { return opts.Stats.Snapshot().Truncations == 1 })
	write(t, a, "ousand\nfour\n")
	want = append(want, "thousand", "four")
	k.wants(t, want...)
	stop()
	stop = follow(t, k.options(dir))
	write(t, a, "five\n")
	want = append(want, "five")
	k.wants(t, want...)
	// Much less of it, or the same words again, is a file begun anew.
	must(t, os.WriteFile(a, []byte("one\n"), 0o644))
	k.wants(t, append(want, "one")...)
	stop()
}

// Some file systems get another device number when they are mounted again.
func TestDeviceHasAnotherNumber(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.log"), filepath.Join(dir, "b.log")
	write(t, a, "one\n")
	write(t, b, "other\n")
	k := newKeeper()
	stop := follow(t, k.options(dir))
	until(t, "both", func() bool { return len(k.all()) == 2 })
	stop()
	for id, off := range k.positions() {
		was := k.rows[id]
		delete(k.pos, id)
		delete(k.rows, id)
		id.Dev += 7
		k.pos[id], k.rows[id] = off, was
	}
	must(t, os.Remove(b))
	write(t, b, "new\n") // perhaps with the number of the one before
	write(t, a, "two\n")
	stop = follow(t, k.options(dir))
	until(t, "the new lines", func() bool { return k.has("two") && k.has("new") })
	stop()
	stop = follow(t, k.options(dir))
	write(t, a, "three\n")
	until(t, "one more", func() bool { return k.has("three") })
	stop()
	if len(k.lines) != 5 {
		t.Errorf("got %q", k.lines)
	}
}

// A process of few descriptors follows many more files. It leaves most of them to
// others, such as the sink, and if these have taken nearly all, it goes on with
// what there is.
func TestFewDescriptors(t *testing.T) {
	for others, sink := range map[string]string{"20": "sink: ", "220": "no matter"} {
		t.Run(others, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			const files = 1500
			put := func(word string) {
				for i := range files {
					write(t, filepath.Join(dir, fmt.Sprint(i%25), fmt.Sprint(i, ".log")), fmt.Sprintf("%s %d\n", word, i))
				}
			}
			put("first")
			out := child(t, &syscall.SysProcAttr{}, "LOGTAIL_CHILD=few", "LOGTAIL_OTHERS="+others, "LOGTAIL_DIR="+dir)
			until(t, "first lines", func() bool { return strings.Count(out(), "line first") == files })
			put("second")
			until(t, "second lines", func() bool { return strings.Count(out(), "line second") == files })
			for line := range strings.Lines(out()) {
				open := 0
				_, _ = fmt.Sscanf(line, "open %d", &open)
				if open > 64 || strings.HasPrefix(line, "skip ") || strings.HasPrefix(line, sink) {
					t.Fatalf("got %q", line)
				}
			}
		})
	}
}

// While a folder is read, a file that is renamed may be seen under neither name.
// Such a file is not gone because the first scan did not meet it.
func TestFileThatTheFirstScanDidNotMeet(t *testing.T) {
	top := t.TempDir()
	dir, away := filepath.Join(top, "log"), filepath.Join(top, "a.log")
	k := newKeeper()
	write(t, filepath.Join(dir, "a.log"), "one\ntwo\n")
	stop := follow(t, k.options(dir))
	k.wants(t, "one", "two")
	stop()
	must(t, os.Rename(filepath.Join(dir, "a.log"), away))
	follow(t, k.options(dir))
	write(t, filepath.Join(dir, "b.log"), "other\n")
	until(t, "the first scan", func() bool { return k.has("other") })
	must(t, os.Rename(away, filepath.Join(dir, "a.log.1")))
	write(t, filepath.Join(dir, "a.log.1"), "three\n")
	k.wants(t, "one", "two", "other", "three")
	must(t, os.Rename(filepath.Join(dir, "a.log.1"), filepath.Join(dir, "a.log")))
	write(t, filepath.Join(dir, "a.log"), "four\n")
	k.wants(t, "one", "two", "other", "three", "four")
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.gone) > 0 {
		t.Errorf("forgotten: %v", k.gone)
	}
}
