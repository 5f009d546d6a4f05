package pool

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// rest is an address that was given back.
type rest struct {
	addr  netip.Addr
	until time.Time
	index int  // in the heap, or -1 when the quarantine is over
	gone  bool // claimed after its quarantine; still in over
}

// quarantine is a heap, soonest end first; the address decides between equals,
// so that the same history always gives the same addresses.
type quarantine []*rest

func (q quarantine) Len() int { return len(q) }

func (q quarantine) Less(i, j int) bool {
	if c := q[i].until.Compare(q[j].until); c != 0 {
		return c < 0
	}
	return q[i].addr.Less(q[j].addr)
}

func (q quarantine) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for package heap.
func (q *quarantine) Push(x any) {
	r := x.(*rest)
	r.index = len(*q)
	*q = append(*q, r)
}

// Pop is for package heap.
func (q *quarantine) Pop() any {
	n := len(*q) - 1
	r := (*q)[n]
	(*q)[n] = nil
	*q = (*q)[:n]
	r.index = -1
	return r
}

// endQuarantines moves what has rested long enough. Each address moves once
// per release.
func (p *Pool) endQuarantines(now time.Time) {
	for len(p.waiting) > 0 && !p.waiting[0].until.After(now) {
		p.over = append(p.over, heap.Pop(&p.waiting).(*rest))
	}
}

// wake takes an address out of its rest. In over it only leaves a hole, and
// over is kept at most half empty.
func (p *Pool) wake(r *rest) {
	delete(p.resting, r.addr)
	if r.index >= 0 {
		heap.Remove(&p.waiting, r.index)
		return
	}
	r.gone = true
	if p.holes++; p.holes > len(p.over)/2 {
		p.over = slices.DeleteFunc(p.over, func(r *rest) bool { return r.gone })
		p.holes = 0
	}
}
