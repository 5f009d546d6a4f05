package logtail

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// scan looks at everything below the directories.
func (t *tailer) scan() {
	t.scanNo++
	t.shut = map[inode]bool{}
	t.findRefused()
	t.opts.Stats.prune(func(path string) bool {
		_, err := t.stat(path)
		return away(err) && !slices.Contains(t.opts.Dirs, path)
	})
	visited := map[inode]bool{}
	for _, root := range t.opts.Dirs {
		dir, err := filepath.EvalSymlinks(root)
		if err != nil {
			t.skip(root, reason(err))
			continue
		}
		t.opts.Stats.unskip(root)
		t.walk(dir, visited)
	}
	for path, f := range t.byPath {
		if f.seen != t.scanNo {
			t.look(path)
		}
	}
	for path := range t.dirs {
		if at, err := t.stat(path); err != nil || !at.is(unix.S_IFDIR) {
			t.forgetDir(path)
		}
	}
}

// walk watches a directory and looks at what is in it: in that order, so that
// nothing appears unseen in between.
func (t *tailer) walk(dir string, visited map[inode]bool) {
	if t.refuses(dir) {
		t.skip(dir, "refused by configuration")
		return
	}
	listed := false
	entries, err := t.list(dir, func(at facts) bool {
		if visited[at.key] {
			return false
		}
		visited[at.key] = true
		if t.refused[at.key] {
			t.skip(dir, "refused by configuration")
			return false
		}
		t.watch(dir, at.key)
		listed = true
		return true
	})
	if errors.Is(err, unix.ENOTDIR) || err != nil && !away(err) {
		t.skip(dir, reason(err))
	} else if listed {
		t.opts.Stats.unskip(dir)
	}
	for _, e := range entries {
		if e.is(unix.S_IFDIR) {
			t.walk(e.path, visited)
		} else {
			t.found(e.path, e.facts, nil, "")
		}
	}
}

// watch asks for a directory's events, each time anew: a folder that was moved
// here may be known to the watcher by its old name, one that was made again may
// have the number of the one before, and asking twice costs nothing.
func (t *tailer) watch(dir string, key inode) {
	if t.inbox.watcher == nil {
		return
	}
	if known, ok := t.dirs[dir]; ok && known != key {
		_ = t.inbox.watcher.Remove(dir)
	}
	t.dirs[dir] = key
	if err := t.inbox.watcher.Add(dir); err != nil {
		if !t.unwatched[dir] {
			t.unwatched[dir] = true
			t.opts.Log.Warn("directory cannot be watched, looking at it every second", "dir", dir, "error", err)
		}
	} else {
		delete(t.unwatched, dir)
	}
	t.opts.Stats.change(func(s *Snapshot) { s.Unwatched = len(t.unwatched) })
}

// forgetDir is for a directory that is gone or has another name now.
func (t *tailer) forgetDir(dir string) {
	if _, ok := t.dirs[dir]; !ok {
		return
	}
	_ = t.inbox.watcher.Remove(dir)
	delete(t.dirs, dir)
	delete(t.unwatched, dir)
	t.opts.Stats.change(func(s *Snapshot) { s.Unwatched = len(t.unwatched) })
	t.inbox.putAll()
}

// lookAt looks at what fsnotify named. What was a followed file's name comes
// first: a scan does not know of it.
func (t *tailer) lookAt(paths map[string]string, all bool) {
	for path, was := range paths {
		if !all || was != "" {
			t.lookFor(path, was)
		}
	}
	if all {
		t.scan()
	}
}

func (t *tailer) look(path string) { t.lookFor(path, "") }

func (t *tailer) lookFor(path, was string) {
	info, err := t.stat(path)
	t.found(path, info, err, was)
}

// found brings the books up to what a path is now. When was is not empty, it is
// the name of a log file that was renamed to path.
func (t *tailer) found(path string, info facts, err error, was string) {
	old := t.byPath[path]
	switch {
	case err != nil:
		if old != nil {
			t.unname(old)
		}
		if away(err) {
			t.opts.Stats.unskip(path)
			t.forgetDir(path)
		} else {
			t.skip(path, reason(err))
		}
		return
	case !info.is(unix.S_IFREG):
		if old != nil {
			t.unname(old)
		}
		if info.is(unix.S_IFDIR) {
			t.walk(path, map[inode]bool{})
			return
		}
		t.forgetDir(path)
		if follows(path) || info.is(unix.S_IFLNK) {
			t.skip(path, kind(info))
		}
		return
	}
	if old != nil && old.key != info.key {
		t.unname(old)
	}
	f := t.byKey[info.key]
	switch {
	case f == nil:
		if follows(path) || was != "" || len(t.saved[info.key]) > 0 {
			t.adopt(path, info.key, was)
		}
		return
	case f.path != path:
		if f.path != "" {
			if at, err := t.stat(f.path); err == nil && at.key == info.key {
				return // a hard link: one name is enough
			}
		}
		t.rename(f, path)
	}
	f.seen = t.scanNo
	// Nothing to read when nothing changed, unless it did within the resolution
	// of the file's time.
	if f.size != info.size || !f.changed.Equal(info.mtime) || f.checked.Sub(f.changed) < time.Second || f.off < f.size {
		t.enqueue(f)
	}
}

// adopt begins to follow a file, where the last run ended if it had it. One whose
// name is not that of a log file must have been one.
func (t *tailer) adopt(path string, key inode, was string) *file {
	fd, at, err := t.openPath(path)
	if err != nil {
		t.shut[key] = true
		if !away(err) {
			t.skip(path, reason(err))
		}
		return nil
	}
	if at != key {
		_ = fd.Close()
		t.inbox.put(path, was) // it was replaced between two looks
		return nil
	}
	t.opts.Stats.unskip(path)
	born := birth(fd)
	f := &file{key: key, born: born, path: path, shown: path, mark: mark{born: born}, grew: time.Now()}
	var lives []position
	saved := t.saved[key]
	delete(t.saved, key)
	delete(t.doubt, key)
	for _, p := range saved {
		if p.mark.n > 0 && p.mark.born != f.mark.born {
			t.bury(&file{path: p.id.Name(), shown: p.id.Name(), born: p.mark.born}, p) // the inode went to another file
		} else {
			lives = append(lives, p)
		}
	}
	switch {
	case len(lives) > 0:
		slices.SortFunc(lives, func(a, b position) int { return a.mark.gen - b.mark.gen })
		last := lives[len(lives)-1]
		was = last.id.Name()
		f.id, f.off, f.looked = last.id, last.off, last.off
		f.mark.gen, f.mark.n, f.mark.sum = last.mark.gen, last.mark.n, last.mark.sum
		f.kept.Store(f.off)
	case was == "" && !follows(path):
		_ = fd.Close()
		return nil
	}
	if was == "" {
		was = path
	} else if !follows(path) {
		f.shown = was
	}
	f.home = filepath.Base(was)
	f.renamed = f.home != filepath.Base(path)
	t.follow(f, fd)
	for _, p := range lives[:max(0, len(lives)-1)] {
		t.bury(f, p)
	}
	return f
}

// follow enters a file into the books.
func (t *tailer) follow(f *file, fd *os.File) {
	if old := t.byPath[f.path]; old != nil {
		t.unname(old)
	}
	t.byKey[f.key], t.byPath[f.path] = f, f
	f.seen = t.scanNo
	f.publish()
	t.enqueue(f)
	t.hold(f, fd)
	t.opts.Stats.follow(f, true)
}

func (t *tailer) skip(path, why string) {
	if t.opts.Stats.skip(path, why) {
		t.opts.Log.Info("not followed", "path", path, "reason", why)
	}
}
