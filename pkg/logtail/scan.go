package logtail

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scan looks at everything below the directories.
func (t *tailer) scan() {
	t.scanNo++
	refused := map[inode]bool{}
	for _, r := range t.opts.Refuse {
		if info, err := os.Stat(r); err == nil {
			refused[keyOf(info)] = true
		}
	}
	t.refused = refused
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
		if _, err := os.Lstat(path); err != nil {
			t.forgetDir(path)
		}
	}
}

// walk watches a directory and looks at what is in it: in that order, so that
// nothing appears unseen in between.
func (t *tailer) walk(dir string, visited map[inode]bool) {
	info, err := os.Lstat(dir)
	if err != nil {
		return // it is gone again
	}
	if !info.IsDir() {
		t.skip(dir, "not a directory")
		return
	}
	key := keyOf(info)
	if visited[key] {
		return
	}
	visited[key] = true
	if t.refused[key] || slices.ContainsFunc(t.opts.Refuse, func(r string) bool { return dir == r || strings.HasPrefix(dir, r+"/") }) {
		t.skip(dir, "refused by configuration")
		return
	}
	t.watch(dir, key)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.skip(dir, reason(err))
		return
	}
	t.opts.Stats.unskip(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			t.walk(path, visited)
		} else {
			t.look(path)
		}
	}
}

func (t *tailer) watch(dir string, key inode) {
	if t.inbox.watcher == nil {
		return
	}
	known, ok := t.dirs[dir]
	if ok && known == key && !t.unwatched[dir] {
		return
	}
	if ok && known != key {
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

// lookAt looks at what fsnotify named.
func (t *tailer) lookAt(paths map[string]struct{}, all bool) {
	if all {
		t.scan()
		return
	}
	for path := range paths {
		t.look(path)
	}
}

// look finds out what a path is now, and brings the books up to that.
func (t *tailer) look(path string) {
	info, err := os.Lstat(path)
	old := t.byPath[path]
	switch {
	case err != nil:
		if old != nil {
			t.unname(old)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			t.opts.Stats.unskip(path)
			t.forgetDir(path)
		} else {
			t.skip(path, reason(err))
		}
		return
	case !info.Mode().IsRegular():
		if old != nil {
			t.unname(old)
		}
		if info.IsDir() {
			t.walk(path, map[inode]bool{})
		} else if follows(path) || info.Mode()&fs.ModeSymlink != 0 {
			t.skip(path, kind(info.Mode()))
		}
		return
	}
	key := keyOf(info)
	if old != nil && old.key != key {
		t.unname(old)
	}
	f := t.byKey[key]
	switch {
	case f == nil:
		if follows(path) || len(t.saved[key]) > 0 {
			t.adopt(path)
		}
		return
	case f.path != path:
		if at, err := os.Lstat(f.path); f.path != "" && err == nil && keyOf(at) == key {
			return // a hard link: one name is enough
		}
		t.rename(f, path)
	}
	f.seen = t.scanNo
	// Nothing to read when nothing changed, unless it did within the resolution
	// of the file's time.
	if f.size != info.Size() || !f.changed.Equal(info.ModTime()) || f.checked.Sub(f.changed) < time.Second || f.off < f.size {
		t.enqueue(f)
	}
}

// adopt begins to follow a file, where the last run ended if it had it.
func (t *tailer) adopt(path string) {
	fd, key, err := openPath(path)
	if err != nil {
		t.skip(path, reason(err))
		return
	}
	t.opts.Stats.unskip(path)
	born := birth(fd)
	f := &file{key: key, born: born, path: path, shown: path, mark: mark{born: born}, grew: time.Now()}
	var lives []position
	saved := t.saved[key]
	delete(t.saved, key)
	for _, p := range saved {
		if p.mark.n > 0 && p.mark.born != f.mark.born {
			t.bury(&file{path: p.id.Name(), shown: p.id.Name(), born: p.mark.born}, p) // the inode went to another file
		} else {
			lives = append(lives, p)
		}
	}
	if len(lives) == 0 && !follows(path) {
		_ = fd.Close()
		return
	}
	if len(lives) > 0 {
		slices.SortFunc(lives, func(a, b position) int { return a.mark.gen - b.mark.gen })
		last := lives[len(lives)-1]
		name := last.id.Name()
		f.id, f.off, f.looked = last.id, last.off, last.off
		f.mark.gen, f.mark.n, f.mark.sum = last.mark.gen, last.mark.n, last.mark.sum
		f.renamed = filepath.Base(name) != filepath.Base(path)
		if !follows(path) {
			f.shown = name
		}
		f.kept.Store(f.off)
	}
	t.follow(f, fd)
	for _, p := range lives[:max(0, len(lives)-1)] {
		t.bury(f, p)
	}
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

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "not a regular file"
}

func reason(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return err.Error()
}
