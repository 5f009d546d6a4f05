package logtail

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// step reads a little of the file whose turn it is.
func (t *tailer) step() {
	e := t.queue.Front()
	f := e.Value.(*file)
	more := t.read(f)
	if t.blocked {
		return // it stays first
	}
	t.queue.Remove(e)
	f.queued = false
	if more {
		t.enqueue(f)
	}
}

func (t *tailer) enqueue(f *file) {
	if f.queued {
		return
	}
	f.queued = true
	t.queue.PushBack(f)
}

// read takes at most one block of lines; true when there may be more.
func (t *tailer) read(f *file) (more bool) {
	if f.gone {
		return false
	}
	if err := t.open(f); err != nil {
		t.lostSight(f, err)
		return false
	}
	info, err := f.fd.Stat()
	if err != nil {
		t.skip(f.path, err.Error())
		return false
	}
	f.checked = time.Now()
	if info.Size() != f.size {
		f.grew = f.checked
	}
	f.size, f.changed = info.Size(), info.ModTime()
	f.publish()
	if f.looked > f.size {
		f.looked = f.off
	}
	// What is read now is compared by take.
	if f.size < f.off || (f.looked == f.size || f.looked > f.off) && !f.same() {
		t.truncated(f)
		return true
	}
	switch {
	case f.looked == f.size:
		t.maybeFading(f)
		return false
	case f.off == 0 && f.mark.gen > 0 && t.skipHole(f):
		return true
	case f.looked > f.off:
		return t.findEnd(f)
	}
	return t.readBlock(f, int(min(f.size-f.off, blockSize)))
}

// lostSight is what happens to a file that cannot be opened (again).
func (t *tailer) lostSight(f *file, err error) {
	if f.path == "" || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced) || errors.Is(err, unix.ELOOP) {
		path := f.path
		t.unname(f)
		if f.fd == nil {
			t.drop(f)
		}
		if path != "" {
			t.inbox.put(path)
		}
		return
	}
	t.skip(f.path, reason(err))
}

// readBlock reads want bytes from the offset and takes their whole lines.
func (t *tailer) readBlock(f *file, want int) (more bool) {
	if t.cur.room() < want+lineCost {
		t.setBlocked(true)
		return true
	}
	buf := t.cur.space(want)
	n, err := f.fd.ReadAt(buf, f.off)
	if err != nil && !errors.Is(err, io.EOF) {
		t.skip(f.path, reason(err))
		return false
	}
	buf = buf[:n]
	whole := bytes.LastIndexByte(buf, '\n') + 1
	if whole == 0 {
		f.looked = f.off + int64(n)
		t.maybeFading(f)
		return f.looked < f.size
	}
	first, taken := len(t.cur.lines), 0
	budget := t.cur.room()
	for taken < whole {
		end := taken + bytes.IndexByte(buf[taken:], '\n') + 1
		if budget -= end - taken + lineCost; budget < 0 {
			break
		}
		t.cur.add(buf[taken:end-1:end-1], f.off+int64(end), false)
		taken = end
	}
	looked := f.off + int64(n)
	if taken < whole {
		looked = f.off + int64(taken)
	}
	t.take(f, buf[:taken], f.off+int64(taken), looked, first)
	return true
}

// findEnd looks for the end of a line longer than a block.
func (t *tailer) findEnd(f *file) (more bool) {
	for done := 0; done < scanStep && f.looked < f.size; {
		n, err := f.fd.ReadAt(t.scratch, f.looked)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if at := bytes.IndexByte(t.scratch[:n], '\n'); at >= 0 {
			return t.readLong(f, f.looked+int64(at)+1, true)
		}
		f.looked += int64(n)
		done += n
	}
	t.maybeFading(f)
	return f.looked < f.size
}

// readLong takes the one line in [off, end), cut when it is too long.
func (t *tailer) readLong(f *file, end int64, newline bool) (more bool) {
	length := end - f.off
	if newline && length-1 <= MaxLine {
		return t.readBlock(f, int(length))
	}
	keep := int(min(length, MaxLine))
	if t.cur.room() < keep+lineCost {
		t.setBlocked(true)
		return true
	}
	buf := t.cur.space(keep)
	if n, _ := f.fd.ReadAt(buf, f.off); n < keep {
		return true // it shrank meanwhile: the next look finds out
	}
	first := len(t.cur.lines)
	t.cur.add(buf[:keep:keep], end, length > MaxLine)
	t.take(f, buf, end, end, first)
	return true
}

// take makes a chunk of the lines that were added since first, which lie in
// data, and moves the offset to end. The file is compared after reading: if it
// still is what it was, nothing that was read can be from after a truncation.
// Otherwise it takes nothing.
func (t *tailer) take(f *file, data []byte, end, looked int64, first int) {
	wasNew := f.id == (FileID{})
	if wasNew {
		head := data
		if f.off > 0 {
			n, _ := f.fd.ReadAt(t.scratch[:min(f.off, headMax)], 0)
			head = t.scratch[:n]
		}
		f.identify(head)
	}
	if !f.same() {
		b := t.cur
		b.lines, b.ends, b.cut = b.lines[:first], b.ends[:first], b.cut[:first]
		if wasNew {
			f.id, f.mark.n, f.mark.sum = FileID{}, 0, 0
		}
		t.truncated(f)
		return
	}
	f.trail = f.trail[:0]
	if int64(len(data)) == end-f.off { // not so for a line that was cut
		f.trail = append(f.trail, data[max(0, len(data)-trailMax):]...)
	}
	t.cur.keep(len(data))
	t.cur.close(f, f.off, end, first)
	f.off, f.looked = end, looked
	if !f.copied {
		t.pay(f)
	}
	t.opts.Stats.fill(t.cur.cost())
}

// skipHole passes the zeros that a writer leaves who goes on at its old place
// after the file was truncated under it.
func (t *tailer) skipHole(f *file) bool {
	n, _ := f.fd.ReadAt(t.scratch[:1], 0)
	if n == 0 || t.scratch[0] != 0 {
		return false
	}
	for at := int64(0); at < f.size; {
		n, _ := f.fd.ReadAt(t.scratch, at)
		if n == 0 {
			break
		}
		rest := bytes.TrimLeft(t.scratch[:n], "\x00")
		at += int64(n - len(rest))
		if len(rest) > 0 {
			f.off, f.looked = at, at
			return true
		}
	}
	return false
}
