package logtail

import (
	"context"
	"errors"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// inboxMax bounds the paths that wait to be looked at. Beyond it everything is
// looked at instead, which needs no memory.
const inboxMax = 16 << 10

// inbox collects what fsnotify says, however busy the reader is: the kernel's
// own queue is short.
type inbox struct {
	watcher *fsnotify.Watcher // nil when the kernel gave none
	wake    chan struct{}
	stats   *Stats

	mu    sync.Mutex
	paths map[string]struct{}
	all   bool
}

func newInbox(st *Stats) (*inbox, error) {
	in := &inbox{wake: make(chan struct{}, 1), stats: st, paths: map[string]struct{}{}}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		in.watcher = w
	}
	return in, err
}

func (in *inbox) close() {
	if in.watcher != nil {
		_ = in.watcher.Close()
	}
}

func (in *inbox) listen(ctx context.Context) {
	if in.watcher == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-in.watcher.Events:
			if !ok {
				return
			}
			if ev.Op != fsnotify.Chmod {
				in.put(ev.Name)
			}
		case err, ok := <-in.watcher.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				in.stats.overflow()
			}
			in.putAll()
		}
	}
}

func (in *inbox) put(path string) {
	in.mu.Lock()
	if _, ok := in.paths[path]; !ok && !in.all {
		in.paths[path] = struct{}{}
		in.all = len(in.paths) > inboxMax
	}
	in.mu.Unlock()
	in.signal()
}

func (in *inbox) putAll() {
	in.mu.Lock()
	in.all = true
	in.mu.Unlock()
	in.signal()
}

func (in *inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox; all means that paths is not all.
func (in *inbox) take() (paths map[string]struct{}, all bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	paths, all = in.paths, in.all
	in.paths, in.all = map[string]struct{}{}, false
	return paths, all
}
