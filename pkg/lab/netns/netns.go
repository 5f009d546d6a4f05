//go:build linux

// Package netns makes network namespaces and runs code and programs in them.
// It owns the namespace and the thread juggling that goes with it; it knows
// nothing of topologies. A *NS may be used from many goroutines.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces are mounted, the directory `ip netns` uses.
const Dir = "/run/netns"

// errExited is the result of a function that ended its goroutine instead of
// returning, as t.FailNow does.
var errExited = errors.New("the function ended its goroutine instead of returning")

// NS is a network namespace, held open until Close.
type NS struct {
	name string // empty for an anonymous one
	file *os.File
}

// New makes an anonymous namespace with its loopback link still down. It ends
// when the last holder (this NS, or a process in it) is gone.
func New() (*NS, error) {
	var ns *NS
	err := OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		f, err := os.Open(threadPath())
		if err != nil {
			return err
		}
		ns = &NS{file: f}
		return nil
	})
	return ns, err
}

// NewNamed makes a namespace that outlives this process, mounted at Dir/name so
// that `ip netns exec name` finds it. Remove ends it.
func NewNamed(name string) (*NS, error) {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return nil, err
	}
	ns, err := New()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(Dir, name)
	mnt, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("name network namespace: %w", err)
	}
	_ = mnt.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.file.Fd()), path, "none", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		_ = ns.Close()
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	ns.name = name
	return ns, nil
}

// Open opens a named namespace.
func Open(name string) (*NS, error) {
	f, err := os.Open(filepath.Join(Dir, name))
	if err != nil {
		return nil, err
	}
	return &NS{name: name, file: f}, nil
}

// Name is the name given to NewNamed or Open, or "".
func (n *NS) Name() string { return n.name }

// Fd is the open descriptor of the namespace, valid until Close.
func (n *NS) Fd() int { return int(n.file.Fd()) }

// Close lets go of the namespace; a named one stays until Remove.
func (n *NS) Close() error { return n.file.Close() }

// Do runs fn on a thread of its own that is inside the namespace, and returns
// when fn has returned. Sockets that fn opens and processes that it starts
// belong to the namespace for good. Goroutines that fn starts do not run in it.
func (n *NS) Do(fn func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.name, err)
		}
		return fn()
	})
}

// OnThread runs fn on a thread that nothing else runs on and that ends
// afterwards, so that whatever fn did to its thread (namespaces, root directory)
// reaches no other goroutine. It is never the main thread of the process: that
// one cannot end, and it is the one that /proc/PID/ns shows.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Held here, the main thread cannot be the one that the next goroutine gets.
			done <- OnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the thread ends with the goroutine.
		err := errExited
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}

func threadPath() string {
	return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
}
