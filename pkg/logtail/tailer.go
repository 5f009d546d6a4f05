package logtail

import (
	"container/list"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// tailer is what run works on. All of it belongs to that goroutine, except for
// out, free, inbox and the statistics.
type tailer struct {
	opts  Options
	inbox *inbox

	byPath map[string]*file
	byKey  map[inode]*file
	fading map[*file]struct{}   // rotated, waiting to be over
	saved  map[inode][]position // known, but not followed now
	doubt  map[inode]bool       // known from the last run, and not met in this one
	dirs   map[string]inode     // watched
	queue  *list.List           // of *file with something to read
	opened *list.List           // of *file with a descriptor, latest used first

	unwatched map[string]bool
	refused   map[inode]bool
	shut      map[inode]bool // seen by the last scan, but could not be opened
	scanNo    int
	scanned   bool

	refusedPaths []string

	cur       *batch
	blocked   bool // cur has no room for what comes next
	out, free chan *batch
	scratch   []byte

	maxOpen               int
	linger, lingerDeleted time.Duration // how long a file without a name is kept
	idle, forsaken        time.Duration // how long half a line waits for its writer
}

// position is where reading of a life of a file ended.
type position struct {
	id   FileID
	mark mark
	off  int64
}

func newTailer(opts Options) *tailer {
	in, err := newInbox(opts.Stats)
	if err != nil {
		opts.Log.Warn("no watching of directories, looking at them every second", "error", err)
	}
	t := &tailer{
		opts: opts, inbox: in,
		byPath: map[string]*file{}, byKey: map[inode]*file{}, fading: map[*file]struct{}{},
		saved: map[inode][]position{}, dirs: map[string]inode{}, unwatched: map[string]bool{},
		queue: list.New(), opened: list.New(),
		cur: newBatch(), out: make(chan *batch), free: make(chan *batch, 1),
		scratch: make([]byte, scanBlock),
		maxOpen: descriptors(),
		// A writer is told of a rotation within seconds; a deleted file holds space.
		linger: time.Minute, lingerDeleted: 10 * time.Second,
		// Many writers write blocks, not lines, and some rarely.
		idle: 10 * time.Second, forsaken: 10 * time.Minute,
	}
	t.free <- newBatch()
	for id, off := range opts.Positions {
		_, m, _ := splitMark(id.Path)
		key := inode{id.Dev, id.Ino}
		t.saved[key] = append(t.saved[key], position{id, m, off})
	}
	return t
}

func (t *tailer) close() {
	t.inbox.close()
	for t.opened.Len() > 0 {
		t.release(t.opened.Front().Value.(*file))
	}
}

// start makes the first scan. A file that it does not meet need not be gone: while
// a folder is read, a file that is renamed may be seen under neither name.
func (t *tailer) start() {
	t.scanned = true
	t.renumber()
	t.scan()
	t.missed()
	t.doubt = map[inode]bool{}
	for key := range t.saved {
		t.doubt[key] = true
	}
}

// judge forgets positions of files that neither the first scan met, nor a later
// one, nor an event in between.
func (t *tailer) judge() {
	for key := range t.doubt {
		var left []position
		for _, p := range t.saved[key] {
			if !t.shut[key] && vanished(p.id) {
				t.bury(&file{path: p.id.Name(), shown: p.id.Name(), born: p.mark.born}, p)
			} else {
				left = append(left, p)
			}
		}
		if t.saved[key] = left; len(left) == 0 {
			delete(t.saved, key)
		}
	}
	t.doubt = nil
}

// vanished says whether a file that no scan met is gone for good. It is not
// when it lies where we are not to look any more, or when its file system is
// not mounted now.
func vanished(id FileID) bool {
	path := id.Name()
	info, err := os.Lstat(path)
	if err == nil && keyOf(info) == (inode{id.Dev, id.Ino}) {
		return false
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil {
			return keyOf(info).dev == id.Dev
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return false
		}
	}
}

func (t *tailer) setBlocked(yes bool) {
	t.blocked = yes
	t.opts.Stats.paused(yes)
}
