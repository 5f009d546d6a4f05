//go:build linux

package supervise

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tailLines   = 20
	tailLine    = 1 << 10 // bytes kept of a line of the tail
	maxLine     = 32 << 10
	sinkLines   = 512
	drainTime   = 20 * time.Millisecond // for what a dead child has just written
	sinkEndTime = time.Second
)

// output is the reading end of a child's standard output or error.
type output struct {
	r    *os.File
	to   *sink
	done chan struct{} // closed at the end of the pipe

	mu   sync.Mutex
	keep int // lines to keep
	tail []string
}

// newOutput makes a pipe; the caller closes the writing end after the start.
func newOutput(to *sink, keep int) (*output, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return &output{r: r, to: to, done: make(chan struct{}), keep: keep}, w, nil
}

// abandon is for a child that never came to be.
func (o *output) abandon() { o.r.Close() }

// read passes every line on until the pipe ends or is closed. It never waits
// for the reader of the lines, so the child never waits for the supervisor.
func (o *output) read() {
	defer close(o.done)
	defer o.r.Close()
	buf := bufio.NewReader(o.r)
	var line []byte
	cut := 0
	for {
		part, err := buf.ReadSlice('\n')
		text := bytes.TrimSuffix(part, []byte("\n"))
		take := min(len(text), maxLine-len(line))
		line = append(line, text[:take]...)
		cut += len(text) - take
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == nil || len(line) > 0 {
			o.emit(line, cut)
		}
		line, cut = nil, 0
		if err != nil {
			return
		}
	}
}

func (o *output) emit(line []byte, cut int) {
	if cut > 0 {
		line = fmt.Appendf(line, " … %d bytes more", cut)
	}
	kept := bytes.TrimRight(line, "\r")
	o.to.put(append(line, '\n'))
	if o.keep == 0 {
		return
	}
	if len(kept) > tailLine {
		kept = kept[:tailLine]
	}
	text := string(bytes.ToValidUTF8(kept, []byte("\uFFFD")))
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.tail) == o.keep {
		o.tail = append(o.tail[:0], o.tail[1:]...)
	}
	o.tail = append(o.tail, text)
}

// lines are the last lines so far, oldest first.
func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.tail...)
}

// drained waits a moment for the end of the pipe.
func (o *output) drained() {
	t := time.NewTimer(drainTime)
	defer t.Stop()
	select {
	case <-o.done:
	case <-t.C:
	}
}

// sink writes lines of all children to one writer, whole and one at a time.
// When the writer is slower than the children, lines are dropped and counted.
type sink struct {
	w       io.Writer
	lines   chan []byte
	dropped atomic.Int64
	done    chan struct{}
}

func newSink(w io.Writer) *sink {
	return &sink{w: w, lines: make(chan []byte, sinkLines), done: make(chan struct{})}
}

func (s *sink) put(line []byte) {
	select {
	case s.lines <- line:
	default:
		s.dropped.Add(1)
	}
}

// run writes until end. Errors of the writer are nobody's to handle: a closed
// terminal must not stop a service.
func (s *sink) run() {
	defer close(s.done)
	for line := range s.lines {
		_, _ = s.w.Write(line)
		if len(s.lines) == 0 {
			if n := s.dropped.Swap(0); n > 0 {
				_, _ = fmt.Fprintf(s.w, "supervisor: %d lines of output dropped, the reader was too slow\n", n)
			}
		}
	}
}

// end writes what is left, if the writer lets it: a writer that blocks for
// ever cannot be waited for. Nothing may be put any more.
func (s *sink) end() {
	close(s.lines)
	t := time.NewTimer(sinkEndTime)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
	}
}
