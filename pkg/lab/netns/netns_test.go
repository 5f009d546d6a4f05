//go:build linux

package netns_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab/netns"
)

// The main thread cannot end: had it entered a namespace, the whole process
// would look as if it were there, and keep it alive.
func TestOnThreadSparesTheMainThread(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				_ = netns.OnThread(func() error {
					if unix.Gettid() == unix.Getpid() {
						t.Error("ran on the main thread")
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
}

func TestOnThreadEndsWithItsFunction(t *testing.T) {
	want := errors.New("x")
	if got := netns.OnThread(func() error { return want }); got != want {
		t.Errorf("got %v", got)
	}
	if err := netns.OnThread(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that ended its goroutine counts as a success")
	}
}

func TestNamed(t *testing.T) {
	const name = "vpnd-netns-test"
	t.Cleanup(func() { _ = netns.Remove(name) })
	ns, err := netns.NewNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, err := netns.NewNamed(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("the same name again: %v", err)
	}
	again, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	where := func() (s string) {
		_ = again.Do(func() (err error) {
			s, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		return s
	}
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := where(); got == "" || got == host {
		t.Errorf("inside: %q, the host is %q", got, host)
	}
	for range 2 {
		if err := netns.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(netns.Dir, name)); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
}

// `ip netns add` binds the directory over itself, with a copy of every mount in
// it, so that each name is mounted twice and no path leads to the lower one. More
// may be mounted on top.
func TestRemoveUnderABindOfTheDirectory(t *testing.T) {
	const before, after = "vpnd-netns-below", "vpnd-netns-above"
	err := netns.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		mount := func(source, target, kind string, flags uintptr) {
			if err := unix.Mount(source, target, kind, flags, ""); err != nil {
				t.Errorf("mount %s: %v", target, err)
			}
		}
		mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE)
		mount("run", filepath.Dir(netns.Dir), "tmpfs", 0)
		for i, name := range []string{before, after} {
			ns, err := netns.NewNamed(name)
			if err != nil {
				return err
			}
			defer ns.Close()
			path := filepath.Join(netns.Dir, name)
			mount(path, path, "", unix.MS_BIND)
			if i == 0 {
				mount(netns.Dir, netns.Dir, "", unix.MS_BIND|unix.MS_REC)
				mount("", netns.Dir, "", unix.MS_REC|unix.MS_SHARED)
			}
		}
		for _, name := range []string{before, after} {
			if err := os.Remove(filepath.Join(netns.Dir, name)); !errors.Is(err, unix.EBUSY) {
				t.Errorf("%s is not mounted: %v", name, err)
			}
			if err := netns.Remove(name); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(netns.Dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left: %v", err)
			}
		}
		mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
		if strings.Contains(string(mounts), "vpnd-netns-") {
			t.Errorf("still mounted:\n%s", mounts)
		}
		return err
	})
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs root")
	}
	if err != nil {
		t.Fatal(err)
	}
}
