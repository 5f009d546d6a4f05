package logtail

import (
	"context"
	"time"
)

// batch is what goes to the sink at once. The bytes of its lines lie in one
// arena that is used again, so memory does not depend on the rate.
type batch struct {
	arena []byte // its capacity never changes: lines point into it
	lines [][]byte
	ends  []int64
	cut   []bool
	parts []part
	gone  []FileID // told after the chunks are kept
}

// part is a chunk whose lines are lines[first:last].
type part struct {
	chunk       Chunk
	first, last int
	file        *file
}

func newBatch() *batch { return &batch{arena: make([]byte, 0, maxBatch)} }

func (b *batch) empty() bool { return len(b.parts) == 0 && len(b.gone) == 0 }

func (b *batch) cost() int { return len(b.arena) + lineCost*len(b.lines) }

// room is how many bytes of lines still fit in.
func (b *batch) room() int { return maxBatch - b.cost() }

// space is n bytes at the end of the arena to read into; they count once keep
// is called.
func (b *batch) space(n int) []byte { return b.arena[len(b.arena) : len(b.arena)+n] }

func (b *batch) keep(n int) { b.arena = b.arena[:len(b.arena)+n] }

func (b *batch) add(line []byte, end int64, cut bool) {
	b.lines = append(b.lines, line)
	b.ends = append(b.ends, end)
	b.cut = append(b.cut, cut)
}

// close ends the chunk whose lines begin at index first.
func (b *batch) close(f *file, from, to int64, first int) {
	b.parts = append(b.parts, part{Chunk{File: f.id, Path: f.shown, From: from, To: to}, first, len(b.lines), f})
}

func (b *batch) chunks() []Chunk {
	out := make([]Chunk, len(b.parts))
	for i, p := range b.parts {
		c := p.chunk
		c.Lines, c.Ends, c.Cut = b.lines[p.first:p.last], b.ends[p.first:p.last], b.cut[p.first:p.last]
		out[i] = c
	}
	return out
}

func (b *batch) reset() {
	clear(b.lines)
	clear(b.parts)
	b.arena, b.lines, b.ends, b.cut = b.arena[:0], b.lines[:0], b.ends[:0], b.cut[:0]
	b.parts, b.gone = b.parts[:0], b.gone[:0]
}

// The wait after a sink that failed, doubled each time.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = 5 * time.Second
)

// deliver takes batches to the sink until the context ends.
func (t *tailer) deliver(ctx context.Context) {
	st := t.opts.Stats
	for {
		var b *batch
		select {
		case <-ctx.Done():
			return
		case b = <-t.out:
		}
		st.taken(b.cost())
		if len(b.parts) > 0 && !t.insist(ctx, func() error { return t.opts.Sink(ctx, b.chunks()) }) {
			return
		}
		for _, p := range b.parts {
			p.file.kept.Store(p.chunk.To)
		}
		st.delivered(b)
		if len(b.gone) > 0 && t.opts.Gone != nil && !t.insist(ctx, func() error { return t.opts.Gone(ctx, b.gone) }) {
			return
		}
		b.reset()
		t.free <- b
	}
}

// insist repeats do until it succeeds; false when the context ended first.
func (t *tailer) insist(ctx context.Context, do func() error) bool {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := do()
		if ctx.Err() != nil {
			return false
		}
		if t.opts.Stats.sink(err) {
			if err == nil {
				t.opts.Log.Info("log lines are kept again")
			} else {
				t.opts.Log.Warn("log lines cannot be kept; reading waits, nothing is lost", "error", err)
			}
		}
		if err == nil {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}
