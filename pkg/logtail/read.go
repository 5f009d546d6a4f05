package logtail

import (
	"bytes"
	"errors"
	"io"
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
	if f.looked > f.size || f.zeros > 0 && !f.zeroAt(f.off) {
		f.looked, f.zeros = f.off, 0 // the hole was filled
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
	case f.looked > f.off:
		return t.findEnd(f)
	}
	return t.readBlock(f, int(min(f.size-f.off, blockSize)))
}

// lostSight is what happens to a file that cannot be opened (again).
func (t *tailer) lostSight(f *file, err error) {
	if f.path == "" || away(err) {
		path := f.path
		t.unname(f)
		if f.fd == nil {
			t.drop(f)
		}
		if path != "" {
			t.inbox.put(path, "")
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
		f.looked, f.zeros = f.off+int64(n), zeros(buf)
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
		line := buf[taken : end-1 : end-1]
		t.cur.add(line[zeros(line):], f.off+int64(end), false)
		taken = end
	}
	rest := buf[taken:]
	if taken < whole {
		rest = nil
	}
	t.take(f, buf[:taken], f.off+int64(taken), rest, first)
	return true
}

// zeros is how many NULs a text begins with. They are a hole: what a writer
// leaves that goes on at its old place after the file was truncated under it, or
// a disk that lost its power.
func zeros(b []byte) int64 {
	if len(b) == 0 || b[0] != 0 {
		return 0
	}
	return int64(len(b) - len(bytes.TrimLeft(b, "\x00")))
}

func (f *file) zeroAt(off int64) bool {
	var b [1]byte
	n, _ := f.fd.ReadAt(b[:], off)
	return n == 1 && b[0] == 0
}

// findEnd looks for the end of a line longer than a block.
func (t *tailer) findEnd(f *file) (more bool) {
	for done := 0; done < scanStep && f.looked < f.size; {
		n, err := f.fd.ReadAt(t.scratch, f.looked)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		hole := f.off+f.zeros == f.looked
		if hole {
			f.zeros += zeros(t.scratch[:n])
		}
		if at := bytes.IndexByte(t.scratch[:n], '\n'); at >= 0 {
			return t.readLong(f, f.looked+int64(at)+1, true)
		}
		f.looked += int64(n)
		done += n
		if hole && f.off+f.zeros == f.looked {
			f.skipHole()
		}
	}
	t.maybeFading(f)
	return f.looked < f.size
}

// skipHole passes what was never written without reading it.
func (f *file) skipHole() {
	data, err := unix.Seek(int(f.fd.Fd()), f.looked, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		data, err = f.size, nil
	}
	if skip := min(data, f.size) - f.looked; err == nil && skip > 0 {
		f.looked += skip
		f.zeros += skip
	}
}

// readLong takes the one line in [off, end), cut when it is too long.
func (t *tailer) readLong(f *file, end int64, newline bool) (more bool) {
	from, to := f.off, end
	if newline {
		to--
	}
	if to-from > MaxLine {
		from += f.zeros
	} else if newline {
		return t.readBlock(f, int(end-from))
	}
	keep := int(min(to-from, MaxLine))
	if t.cur.room() < keep+lineCost {
		t.setBlocked(true)
		return true
	}
	buf := t.cur.space(keep)
	if n, _ := f.fd.ReadAt(buf, from); n < keep {
		return true // it shrank meanwhile: the next look finds out
	}
	first := len(t.cur.lines)
	t.cur.add(buf[zeros(buf):keep:keep], end, to-from > MaxLine)
	t.take(f, buf, end, nil, first)
	return true
}

// take makes a chunk of the lines that were added since first, which lie in
// data, and moves the offset to end; rest is what was read behind it, without a
// newline. The file is compared after reading: if it still is what it was,
// nothing that was read can be from after a truncation. Otherwise it takes
// nothing.
func (t *tailer) take(f *file, data []byte, end int64, rest []byte, first int) {
	wasNew := f.id == (FileID{})
	if wasNew {
		head := data
		if f.off > 0 || f.zeros > 0 {
			n, _ := f.fd.ReadAt(t.scratch[:min(end, headMax)], 0)
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
	f.off, f.looked, f.zeros = end, end+int64(len(rest)), zeros(rest)
	if !f.copied {
		t.pay(f)
	}
	t.opts.Stats.fill(t.cur.cost())
}
