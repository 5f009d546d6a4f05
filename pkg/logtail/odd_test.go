package logtail_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/logtail"
)

// The test binary starts itself for what needs a process of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("LOGTAIL_CHILD") {
	case "":
		os.Exit(m.Run())
	case "journal":
		os.Exit(journalChild(os.Getenv("LOGTAIL_DIR"), os.Getenv("LOGTAIL_OUT")))
	case "nobody":
		// All threads change, so nothing of root is left for opening files.
		if err := syscall.Setgid(65534); err != nil {
			panic(err)
		}
		if err := syscall.Setuid(65534); err != nil {
			panic(err)
		}
		os.Exit(printChild(os.Getenv("LOGTAIL_DIR")))
	case "few":
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 256, Max: 256}); err != nil {
			panic(err)
		}
		// Others of this process have most of them.
		others, err := strconv.Atoi(os.Getenv("LOGTAIL_OTHERS"))
		if err != nil {
			panic(err)
		}
		for range others {
			if _, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0); err != nil {
				panic(err)
			}
		}
		os.Exit(printChild(os.Getenv("LOGTAIL_DIR")))
	case "unwatched":
		if err := os.WriteFile("/proc/sys/user/max_inotify_"+os.Getenv("LOGTAIL_LIMIT"), []byte(os.Getenv("LOGTAIL_MAX")), 0); err != nil {
			panic(err)
		}
		os.Exit(printChild(os.Getenv("LOGTAIL_DIR")))
	}
}

// printChild prints lines as they come, and what is skipped, until it is ended.
func printChild(dir string) int {
	k := newKeeper()
	opts := k.options(dir)
	opts.Rescan = 100 * time.Millisecond
	opts.Sink = func(_ context.Context, chunks []logtail.Chunk) error {
		if f, err := os.Open("/dev/null"); err != nil {
			fmt.Printf("sink: %v\n", err)
		} else {
			_ = f.Close()
		}
		for _, c := range chunks {
			for _, l := range c.Lines {
				fmt.Printf("line %s\n", l)
			}
		}
		s := opts.Stats.Snapshot()
		fmt.Printf("unwatched %d\nopen %d\n", s.Unwatched, s.Open)
		for _, s := range s.Skipped {
			fmt.Printf("skip %s: %s\n", filepath.Base(s.Path), s.Reason)
		}
		return nil
	}
	_ = logtail.RunHasty(context.Background(), opts, time.Millisecond, time.Second)
	return 0
}

// child starts the test binary in a role; want gives what it printed so far.
func child(t *testing.T, attr *syscall.SysProcAttr, env ...string) (output func() string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = attr
	out, err := os.CreateTemp(t.TempDir(), "out")
	must(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		if attr != nil {
			t.Skipf("no user namespace here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = out.Close()
	})
	return func() string {
		b, err := os.ReadFile(out.Name())
		must(t, err)
		return string(b)
	}
}

func TestWhatIsNoLogFileIsSkippedWithAReason(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, filepath.Join(outside, "secret.txt"), "secret\n")
	must(t, os.Symlink(filepath.Join(outside, "secret.txt"), at("link.log")))
	must(t, os.Symlink(outside, at("linkdir")))
	must(t, os.Symlink(at("loop"), at("loop")))
	must(t, os.MkdirAll(at("sub"), 0o755))
	must(t, os.Symlink("..", at("sub/up")))
	must(t, unix.Mkfifo(at("pipe.log"), 0o644))
	want := map[string]string{
		at("link.log"): "symbolic link", at("linkdir"): "symbolic link", at("loop"): "symbolic link", at("sub/up"): "symbolic link",
		at("pipe.log"): "named pipe", at("exports"): "refused by configuration",
		filepath.Join(dir, "no"): "no such file or directory",
	}
	if err := unix.Mknod(at("null.log"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))); err == nil {
		want[at("null.log")] = "device"
	} else {
		t.Logf("no device made: %v", err)
	}
	write(t, at("exports/e.jsonl"), "exported\n")
	write(t, at("a.log"), "one\n")
	must(t, os.Link(at("a.log"), at("same.log")))

	k := newKeeper()
	opts := k.options(dir, at("sub"), filepath.Join(dir, "no"))
	opts.Refuse = []string{at("exports")}
	opts.Rescan = 30 * time.Millisecond
	stop := follow(t, opts)
	k.wants(t, "one")
	must(t, unix.Mkfifo(at("late.log"), 0o644))
	want[at("late.log")] = "named pipe"
	write(t, at("exports/deep/f.log"), "exported\n")
	var got map[string]string
	until(t, "skipped files", func() bool {
		got = map[string]string{}
		for _, s := range opts.Stats.Snapshot().Skipped {
			got[s.Path] = s.Reason
		}
		return len(got) >= len(want)
	})
	for path, why := range want {
		if got[path] != why {
			t.Errorf("%s: got %q, want %q", path, got[path], why)
		}
	}
	must(t, os.Remove(at("late.log")))
	write(t, at("late.log"), "two\n")
	k.wants(t, "one", "two")
	stop()
}

func TestUnreadableFile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	dir, err := os.MkdirTemp("", "logtail")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	write(t, filepath.Join(dir, "secret.log"), "secret\n")
	must(t, os.Chmod(filepath.Join(dir, "secret.log"), 0o600))
	write(t, filepath.Join(dir, "roots.log"), "readable\n")
	out := child(t, nil, "LOGTAIL_CHILD=nobody", "LOGTAIL_DIR="+dir)
	has := func(s string) func() bool { return func() bool { return strings.Contains(out(), s) } }
	until(t, "another user's readable file", has("line readable"))
	write(t, filepath.Join(dir, "roots.log"), "more\n")
	until(t, "the reason", has("skip secret.log: permission denied"))
	if has("line secret")() {
		t.Error("read what it may not")
	}
	must(t, os.Chmod(filepath.Join(dir, "secret.log"), 0o644))
	until(t, "the file after it became readable", has("line secret"))
	// Nor may it ask who writes to root's files, so half a line waits longer.
	write(t, filepath.Join(dir, "roots.log"), "hal")
	write(t, filepath.Join(dir, "mark.log"), "mark\n")
	until(t, "the mark", has("line mark"))
	write(t, filepath.Join(dir, "roots.log"), "f\nno end")
	until(t, "the half line", has("line no end"))
	if !has("line half")() {
		t.Errorf("got %q", out())
	}
}

// The kernel's limits on watches are the user's namespace's, so a namespace of
// its own shows what happens at them.
func TestWithoutWatches(t *testing.T) {
	for _, c := range []struct{ limit, max, says string }{{"watches", "2", "unwatched 3"}, {"instances", "0", "unwatched 0"}} {
		t.Run(c.limit, func(t *testing.T) {
			dir := t.TempDir()
			for i := range 4 {
				write(t, filepath.Join(dir, fmt.Sprint(i), "a.log"), fmt.Sprintf("first %d\n", i))
			}
			out := child(t, &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}, "LOGTAIL_CHILD=unwatched", "LOGTAIL_LIMIT="+c.limit, "LOGTAIL_MAX="+c.max, "LOGTAIL_DIR="+dir)
			for _, word := range []string{"first", "second"} {
				if word == "second" {
					for i := range 4 {
						write(t, filepath.Join(dir, fmt.Sprint(i), "a.log"), fmt.Sprintf("second %d\n", i))
					}
				}
				for i := range 4 {
					until(t, word, func() bool { return strings.Contains(out(), fmt.Sprintf("line %s %d\n", word, i)) })
				}
			}
			if !strings.Contains(out(), c.says) {
				t.Errorf("got %q, want %q in it", out(), c.says)
			}
		})
	}
}
