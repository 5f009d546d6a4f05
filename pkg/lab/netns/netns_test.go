//go:build linux

package netns_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
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
