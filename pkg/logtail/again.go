package logtail

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxNumber is the most files that a rotation is believed to keep.
const maxNumber = 1000

// renumber gives saved positions the device number that their file system has
// now. Some get another at each mount (btrfs, overlay, NFS), and everything would
// be read twice. The identity stays what it was.
func (t *tailer) renumber() {
	for key, list := range t.saved {
		name := list[0].id.Name()
		at, err := t.stat(name)
		if err != nil || at.key.ino != key.ino || at.key == key || t.saved[at.key] != nil {
			continue
		}
		fd, _, err := t.openPath(name)
		if err != nil {
			continue
		}
		born := birth(fd)
		if !slices.ContainsFunc(list, func(p position) bool { return p.mark.n == 0 || p.mark.born != born }) &&
			slices.ContainsFunc(list, func(p position) bool { return p.mark.begins(fd) }) {
			delete(t.saved, key)
			t.saved[at.key] = list
		}
		_ = fd.Close()
	}
}

// missed follows files that were begun and rotated away while nobody looked. They
// are known by this: a log file of the last run has a number now, and below it are
// numbers of files that were made after the last writing to it. A copy of it was
// made before that.
func (t *tailer) missed() {
	youngest := map[string]FileID{}
	for id := range t.opts.Positions {
		name, m, _ := splitMark(id.Path)
		if _, last, _ := splitMark(youngest[name].Path); m.born > last.born {
			youngest[name] = id
		}
	}
	for name, id := range youngest {
		f := t.byKey[inode{id.Dev, id.Ino}]
		if _, m, _ := splitMark(id.Path); f == nil || f.born != m.born || f.path == name {
			continue
		}
		last, err := t.stat(f.path)
		if err != nil {
			continue
		}
		for n := number(f.path, name) - 1; n > 0; n-- {
			path := name + "." + strconv.Itoa(n)
			if at, err := t.stat(path); err == nil && at.is(unix.S_IFREG) && t.byKey[at.key] == nil && t.saved[at.key] == nil && t.born(path) > last.mtime.UnixNano() {
				t.adopt(path, at.key, name)
			}
		}
	}
}

// born is when the file at a path was made, 0 when nobody can say.
func (t *tailer) born(path string) int64 {
	fd, _, err := t.openPath(path)
	if err != nil {
		return 0
	}
	defer fd.Close()
	return birth(fd)
}

// number is n of name.n, and 0 for all other paths.
func number(path, name string) int {
	rest, _ := strings.CutPrefix(path, name+".")
	n, err := strconv.Atoi(rest)
	if err != nil || n < 1 || n > maxNumber {
		return 0
	}
	return n
}
