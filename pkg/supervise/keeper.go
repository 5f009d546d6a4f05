//go:build linux

package supervise

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// keeper starts the processes of one service, all of them from one operating
// system thread that is confined to the service's capabilities and lives until
// close. The kernel sends the parent death signal when the *thread* that
// forked ends, so the thread has to outlast every child.
type keeper struct {
	caps  []uintptr
	calls chan func()
}

// newKeeper starts the thread and confines it.
func newKeeper(caps []uintptr) (*keeper, error) {
	k := &keeper{caps: caps, calls: make(chan func())}
	ready := make(chan error)
	go onOwnThread(func() {
		err := confine(caps)
		ready <- err
		if err != nil {
			return
		}
		for call := range k.calls {
			call()
		}
	})
	return k, <-ready
}

// onOwnThread runs f on a thread that ends with it. The main thread cannot be
// that: it shows in /proc as the process itself and does not end before the
// process does. While this goroutine holds the main thread, the next one
// cannot get it.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // ends locked, so the runtime ends the thread too
		return
	}
	taken := make(chan struct{})
	go onOwnThread(func() {
		close(taken)
		f()
	})
	<-taken
	runtime.UnlockOSThread()
}

// start forks and executes from the keeper's thread.
func (k *keeper) start(argv0 string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	type result struct {
		proc *os.Process
		err  error
	}
	results := make(chan result)
	k.calls <- func() {
		proc, err := os.StartProcess(argv0, argv, attr)
		results <- result{proc, err}
	}
	r := <-results
	return r.proc, r.err
}

// close ends the thread. A child still alive is killed by the kernel.
func (k *keeper) close() { close(k.calls) }
