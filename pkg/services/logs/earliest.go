package logs

import (
	"cmp"
	"container/heap"
	"slices"

	"vpnd/pkg/logstore"
)

// What is held of the lines that a reader has to catch up with.
const (
	batchLines = 20_000
	batchBytes = 6 << 20
)

// earliest keeps those of many lines that arrived first.
type earliest struct {
	most  int // lines
	lines latestFirst
	bytes int
	more  bool // some were left out
}

func (e *earliest) add(l logstore.Found) {
	full := len(e.lines) >= e.most || e.bytes >= batchBytes
	if e.more || full {
		e.more = true
		if arrivedBefore(e.lines[0].ID, l.ID) {
			return
		}
	}
	heap.Push(&e.lines, l)
	e.bytes += sizeOf(&l.Record)
	for len(e.lines) > e.most || e.bytes > batchBytes && len(e.lines) > 1 {
		out := heap.Pop(&e.lines).(logstore.Found)
		e.bytes -= sizeOf(&out.Record)
		e.more = true
	}
}

// take gives the lines in the order of their arrival.
func (e *earliest) take() []logstore.Found {
	lines := []logstore.Found(e.lines)
	e.lines, e.bytes = nil, 0
	slices.SortFunc(lines, func(a, b logstore.Found) int { return compareArrival(a.ID, b.ID) })
	return lines
}

// Lines of a day are numbered as they arrive; days follow one another.
func compareArrival(a, b logstore.ID) int {
	return cmp.Or(cmp.Compare(dayOf(a), dayOf(b)), cmp.Compare(a.Seq, b.Seq))
}

func arrivedBefore(a, b logstore.ID) bool { return compareArrival(a, b) < 0 }

// latestFirst is a heap.
type latestFirst []logstore.Found

func (h latestFirst) Len() int           { return len(h) }
func (h latestFirst) Less(i, j int) bool { return arrivedBefore(h[j].ID, h[i].ID) }
func (h latestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *latestFirst) Push(x any)        { *h = append(*h, x.(logstore.Found)) }
func (h *latestFirst) Pop() any {
	old := *h
	out := old[len(old)-1]
	old[len(old)-1] = logstore.Found{}
	*h = old[:len(old)-1]
	return out
}
