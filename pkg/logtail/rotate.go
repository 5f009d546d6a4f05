package logtail

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// truncated begins a file anew, under a new identity. What was not read before
// may be in a copy that was made first.
func (t *tailer) truncated(f *file) {
	if f.copied {
		t.drop(f) // nobody truncates a copy but to throw it away
		return
	}
	t.opts.Stats.change(func(s *Snapshot) { s.Truncations++ })
	start := int64(0)
	if f.id != (FileID{}) {
		d := &debt{id: f.id, open: 1}
		var cut bool
		if start, cut = f.shortened(); !cut {
			if c := t.copyOf(f, position{f.id, f.mark, f.off}, f.trail); c != nil {
				d.open++
				c.owes = append(c.owes, d)
			}
		}
		f.owes = append(f.owes, d)
		f.mark = mark{born: f.mark.born, gen: f.mark.gen + 1}
		t.opts.Log.Info("log file was truncated", "file", f.shown, "after", f.off, "reading_from", start)
	}
	f.id, f.off, f.looked, f.zeros, f.trail = FileID{}, start, start, 0, f.trail[:0]
	f.kept.Store(0)
}

// shortened says whether only the last bytes of what was read are gone, and where
// the line begins that the file ends in now: what is before it was read. So much
// of what lay before them is still there that nobody wrote it anew.
func (f *file) shortened() (start int64, ok bool) {
	left := len(f.trail) - int(f.off-f.size)
	if f.size >= f.off || left < trailMax/2 || !f.mark.begins(f.fd) {
		return 0, false
	}
	var buf [trailMax]byte
	n, _ := f.fd.ReadAt(buf[:left], f.size-int64(left))
	line := bytes.LastIndexByte(buf[:n], '\n') + 1
	if line == 0 || string(buf[:n]) != string(f.trail[:left]) {
		return 0, false
	}
	return f.size - int64(left-line), true
}

// copyOf finds the copy that was made of a life of f before it was truncated,
// and follows it to its end under the identity of that life, as if nothing had
// happened: so lines that are read twice after a kill are known again. Nil when
// there is none with more to read. One whose name is that of a log file is
// followed for itself.
func (t *tailer) copyOf(f *file, life position, trail []byte) *file {
	if f.path == "" || life.mark.n == 0 {
		return nil
	}
	dir, base := filepath.Split(f.path)
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []os.FileInfo
	for _, e := range entries {
		if follows(e.Name()) || !strings.HasPrefix(e.Name(), stem) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil && info.Size() > life.off {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, info := range found[:min(len(found), copyTries)] {
		path := dir + info.Name()
		fd, key, err := t.openPath(path)
		if err != nil {
			continue
		}
		c := &file{
			key: key, born: birth(fd), path: path, shown: f.shown, renamed: true, copied: true,
			id: life.id, mark: life.mark, off: life.off, looked: life.off, trail: slices.Clone(trail), grew: time.Now(), fd: fd,
		}
		if t.knows(key, c.born) || c.born < f.born || !c.same() {
			_ = fd.Close()
			continue
		}
		t.follow(c, fd)
		return c
	}
	return nil
}

// bury ends a life that the last run knew: its rest is in a copy, or it is over.
func (t *tailer) bury(f *file, life position) {
	if c := t.copyOf(f, life, nil); c != nil {
		c.owes = append(c.owes, &debt{id: life.id, open: 1})
		return
	}
	t.cur.gone = append(t.cur.gone, life.id)
}

// knows says whether a file is followed, or was by the last run.
func (t *tailer) knows(key inode, born int64) bool {
	return t.byKey[key] != nil || slices.ContainsFunc(t.saved[key], func(p position) bool { return p.mark.n == 0 || p.mark.born == born })
}

// pay tells that a file did its part, or never will: that a truncated one has a
// position of its own, or that a copy was read to its end.
func (t *tailer) pay(f *file) {
	for _, d := range f.owes {
		if d.open--; d.open == 0 {
			t.cur.gone = append(t.cur.gone, d.id)
		}
	}
	f.owes = nil
}

// rename notes that a followed file has another name.
func (t *tailer) rename(f *file, path string) {
	if t.byPath[f.path] == f {
		delete(t.byPath, f.path)
	}
	if f.path == "" || filepath.Base(f.path) != filepath.Base(path) {
		t.opts.Stats.change(func(s *Snapshot) { s.Renames++ })
	}
	f.renamed = f.home != filepath.Base(path)
	f.path = path
	if follows(path) {
		f.shown = path
	}
	t.byPath[path] = f
	f.publish()
}

// unname notes that a file was deleted, or went where we do not look. What it
// still holds is read through the open descriptor.
func (t *tailer) unname(f *file) {
	if t.byPath[f.path] == f {
		delete(t.byPath, f.path)
	}
	f.path, f.grew = "", time.Now()
	f.publish()
	if f.fd == nil {
		t.drop(f) // under another name it goes on at the same offset
		return
	}
	t.fading[f] = struct{}{}
	t.enqueue(f)
}

// links is how many names an open file has anywhere.
func links(fd *os.File) uint64 {
	info, err := fd.Stat()
	if err != nil {
		return 1
	}
	return uint64(info.Sys().(*syscall.Stat_t).Nlink)
}

// drop ends following a file. One that is deleted never comes again; one that
// went elsewhere may, so its position is kept.
func (t *tailer) drop(f *file) {
	if f.gone {
		return
	}
	f.gone = true
	if t.byKey[f.key] == f {
		delete(t.byKey, f.key)
	}
	if t.byPath[f.path] == f {
		delete(t.byPath, f.path)
	}
	delete(t.fading, f)
	deleted := f.fd != nil && links(f.fd) == 0
	if deleted {
		t.opts.Stats.change(func(s *Snapshot) { s.Deletions++ })
	}
	if f.id != (FileID{}) && !f.copied {
		if deleted {
			t.cur.gone = append(t.cur.gone, f.id)
		} else {
			t.saved[f.key] = append(t.saved[f.key], position{f.id, f.mark, f.off})
		}
	}
	t.pay(f)
	t.release(f)
	t.opts.Stats.follow(f, false)
}

// maybeFading keeps an eye on a file that nobody should be writing to, and on one
// that ends in half a line.
func (t *tailer) maybeFading(f *file) {
	if f.off < f.size || f.rotated() && (f.path == "" || f.copied) {
		t.fading[f] = struct{}{}
	}
}

// fade takes half lines once they are quiet, and lets go of files without a name.
// The half line of a file that was not rotated is taken when whoever wrote it will
// not end it.
func (t *tailer) fade() {
	for f := range t.fading {
		if f.path != "" && f.off == f.size && !f.queued && !f.copied {
			delete(t.fading, f)
			continue
		}
		live := !f.rotated()
		if f.queued || live && (time.Since(f.grew) < t.idle || time.Since(f.asked) < t.idle) {
			continue
		}
		f.asked = time.Now()
		if err := t.open(f); err != nil {
			t.lostSight(f, err)
			continue
		}
		info, err := f.fd.Stat()
		quiet := time.Since(f.grew)
		switch {
		case err != nil || info.Size() != f.size || f.looked != f.size:
			t.enqueue(f)
		case f.off < f.size:
			if live && t.abandoned(f, quiet) || !live && quiet >= halfQuiet {
				t.readLong(f, f.size, false)
			}
		case f.copied && quiet >= halfQuiet, quiet >= t.linger, quiet >= t.lingerDeleted && links(f.fd) == 0:
			t.drop(f)
		}
	}
}

// abandoned says whether nobody has the file open for writing: then the kernel
// grants a lease on it, which is given back at once. To those who may not ask, for
// a file of another user, the time says so.
func (t *tailer) abandoned(f *file, quiet time.Duration) bool {
	_, err := unix.FcntlInt(f.fd.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(f.fd.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return err == nil || !errors.Is(err, unix.EAGAIN) && quiet >= t.forsaken
}
