package logtail

import (
	"bytes"
	"container/list"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// file is one inode that is followed.
type file struct {
	key     inode
	born    int64  // as in mark, which for a copy is that of the original
	path    string // where it is, empty when it has no name in our directories
	shown   string // the last name it had as a followed file
	home    string // the last part of its first name as one
	renamed bool   // rotated: nobody should be writing to it for long
	copied  bool   // the copy of a file that was truncated then

	id     FileID // once the first line was read
	mark   mark
	off    int64  // where the next line begins
	looked int64  // there is no newline in [off, looked)
	zeros  int64  // how many NULs begin [off, looked): a hole, not text
	trail  []byte // what lies before off, as it was read

	fd      *os.File
	used    *list.Element // its place among the open ones
	queued  bool
	gone    bool // no longer followed
	seen    int  // number of the scan that last saw it
	size    int64
	changed time.Time // mtime when last read
	checked time.Time // when last read
	grew    time.Time // when last seen to grow, or to lose its name
	asked   time.Time // when it was last looked for a writer

	owes []*debt // identities that can be forgotten when it did its part
	kept atomic.Int64
	stat atomic.Pointer[FileStat]
}

// trailMax is how much before the offset is compared with what was read.
const trailMax = 64

// debt is an identity that is superseded, but whose position is needed until
// the next life of its file has one, and its copy is read.
type debt struct {
	id   FileID
	open int
}

// extensions are what a followed file's name ends in.
var extensions = map[string]bool{".log": true, ".jsonl": true, ".json": true, ".txt": true}

func follows(path string) bool { return extensions[strings.ToLower(filepath.Ext(path))] }

var errReplaced = errors.New("another file has this name now")

// open makes sure there is a descriptor, and that it is of the same file.
func (t *tailer) open(f *file) error {
	if f.fd != nil {
		t.opened.MoveToFront(f.used)
		return nil
	}
	fd, key, err := t.openPath(f.path)
	if err != nil {
		return err
	}
	if key != f.key || birth(fd) != f.born {
		_ = fd.Close()
		return errReplaced
	}
	t.opts.Stats.unskip(f.path)
	t.hold(f, fd)
	return nil
}

// hold keeps a descriptor, and gives others up when there are too many, the
// longest unused first. A file with a name can be opened again; only if it is
// deleted in between is what was not read of it lost.
func (t *tailer) hold(f *file, fd *os.File) {
	f.fd, f.used = fd, t.opened.PushFront(f)
	for e := t.opened.Back(); e != nil && t.opened.Len() > t.maxOpen; {
		old := e.Value.(*file)
		e = e.Prev()
		switch {
		case old == f:
		case old.path != "":
			t.release(old)
		case old.off == old.size && !old.queued:
			t.drop(old)
		}
	}
	t.opts.Stats.change(func(s *Snapshot) { s.Open = t.opened.Len() })
}

// spare gives up half of the descriptors, those unused for longest, and keeps to
// that: others of this process need them. False when there is nothing to give.
func (t *tailer) spare() bool {
	before := t.opened.Len()
	for e, n := t.opened.Back(), before/2; e != nil && n > 0; n-- {
		old := e.Value.(*file)
		e = e.Prev()
		if old.path != "" {
			t.release(old)
		}
	}
	t.maxOpen = max(1, t.opened.Len())
	return t.opened.Len() < before
}

func (t *tailer) release(f *file) {
	if f.fd == nil {
		return
	}
	t.opened.Remove(f.used)
	_ = f.fd.Close()
	f.fd, f.used = nil, nil
	t.opts.Stats.change(func(s *Snapshot) { s.Open = t.opened.Len() })
}

// rotated says that the file's last line may stay without an end.
func (f *file) rotated() bool { return f.renamed || f.path == "" }

// publish shows the state of the file to readers of the statistics.
func (f *file) publish() {
	f.stat.Store(&FileStat{Path: f.path, Name: f.shown, Size: f.size})
}

// same says whether what was read is still there: the beginning, and what lies
// before the offset.
func (f *file) same() bool {
	if !f.mark.begins(f.fd) {
		return false
	}
	if len(f.trail) == 0 {
		return true
	}
	var buf [trailMax]byte
	n, _ := f.fd.ReadAt(buf[:len(f.trail)], f.off-int64(len(f.trail)))
	return string(buf[:n]) == string(f.trail)
}

// identify gives the file its identity, from its first line.
func (f *file) identify(head []byte) {
	head = head[:min(len(head), headMax)]
	if end := bytes.IndexByte(head, '\n'); end >= 0 {
		head = head[:end+1]
	}
	f.mark.n, f.mark.sum = len(head), headSum(head)
	f.id = FileID{f.key.dev, f.key.ino, f.shown + f.mark.String()}
}
