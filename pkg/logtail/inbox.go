package logtail

import (
	"context"
	"errors"
	"strconv"
	"strings"
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
	paths map[string]string // to the log file's name that it had before, if it was renamed
	all   bool
	moved [16][2]string // the last of these, by turns: a rename may follow another
	turn  int
}

func newInbox(st *Stats) (*inbox, error) {
	in := &inbox{wake: make(chan struct{}, 1), stats: st, paths: map[string]string{}}
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
				in.put(ev.Name, in.was(ev))
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

// was is the name of a log file that another name was given: a file that is made
// and rotated before anybody looked is still read.
func (in *inbox) was(ev fsnotify.Event) string {
	if !ev.Has(fsnotify.Create) || follows(ev.Name) {
		return ""
	}
	// There is no other way to the old name.
	_, quoted, ok := strings.Cut(ev.String(), " ← ")
	name, err := strconv.Unquote(quoted)
	if !ok || err != nil {
		return ""
	}
	for _, m := range in.moved {
		if m[0] == name {
			name = m[1]
			break
		}
	}
	if !follows(name) {
		return ""
	}
	in.moved[in.turn] = [2]string{ev.Name, name}
	in.turn = (in.turn + 1) % len(in.moved)
	return name
}

func (in *inbox) put(path, was string) {
	in.mu.Lock()
	if old, ok := in.paths[path]; !in.all && (!ok || old == "") {
		in.paths[path] = was
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
func (in *inbox) take() (paths map[string]string, all bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	paths, all = in.paths, in.all
	in.paths, in.all = map[string]string{}, false
	return paths, all
}
