package logs

import (
	"sync"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logstore"
)

// What is collected for a follower. What is more has to be read from the store,
// and a reader that lags behind further than that loses lines.
const (
	queueLines = 4000
	queueBytes = 2 << 20
	patience   = 50_000
)

// hub hands new lines to whoever follows.
type hub struct {
	most int

	mu        sync.Mutex
	followers map[*follower]struct{}
	pending   map[logstore.Day]bool // days of the append that is under way
	settled   chan struct{}         // closed when it has ended
}

func newHub(most int) *hub {
	return &hub{most: most, followers: map[*follower]struct{}{}, pending: map[logstore.Day]bool{}, settled: make(chan struct{})}
}

// follower is one reader. Its fields are guarded by the hub's mu.
type follower struct {
	match   func(*logline.Record) bool // called by the hub alone
	queue   []logstore.Found
	bytes   int
	lost    uint64        // matching lines before queue[0] that were dropped; the store has them
	since   marks         // what arrived since it joined, or since the last take or again
	changed chan struct{} // has a token when there is something to take
}

// marks tell of each day where something begins that arrived.
type marks map[logstore.Day]mark

type mark struct {
	seq  int64 // lowest number
	time int64 // lowest time, in microseconds
}

func (m marks) note(id logstore.ID) {
	day := dayOf(id)
	was, known := m[day]
	if !known {
		was = mark{id.Seq, id.Time}
	}
	m[day] = mark{min(was.seq, id.Seq), min(was.time, id.Time)}
}

// join begins to collect. Nobody may append meanwhile.
func (h *hub) join(match func(*logline.Record) bool) (*follower, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.followers) >= h.most {
		return nil, fault.New(fault.Throttled, "%d readers follow log lines already", h.most).
			WithReason("followers").WithHint("end one of them")
	}
	f := &follower{match: match, since: marks{}, changed: make(chan struct{}, 1)}
	h.followers[f] = struct{}{}
	return f, nil
}

func (h *hub) leave(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.followers, f)
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.followers)
}

func (h *hub) active() bool { return h.count() > 0 }

// begin says which days an append changes before it does.
func (h *hub) begin(batches []logstore.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range batches {
		for k := range batches[i].Rows {
			h.pending[logstore.DayOf(batches[i].Rows[k].Record.Time)] = true
		}
	}
}

func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.pending)
	close(h.settled)
	h.settled = make(chan struct{})
}

// publish hands out lines in the order of their arrival.
func (h *hub) publish(lines []logstore.Found) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news := marks{}
	for i := range lines {
		news.note(lines[i].ID)
	}
	for f := range h.followers {
		for day, n := range news {
			if was, known := f.since[day]; known {
				n = mark{min(was.seq, n.seq), min(was.time, n.time)}
			}
			f.since[day] = n
		}
		for i := range lines {
			if f.match(&lines[i].Record) {
				f.add(lines[i])
			}
		}
		f.wake()
	}
}

func (f *follower) add(l logstore.Found) {
	f.queue = append(f.queue, l)
	f.bytes += sizeOf(&l.Record)
	for len(f.queue) > queueLines || f.bytes > queueBytes && len(f.queue) > 1 {
		f.bytes -= sizeOf(&f.queue[0].Record)
		f.queue[0] = logstore.Found{}
		f.queue = f.queue[1:]
		f.lost++
	}
}

func (f *follower) wake() {
	if len(f.queue) == 0 {
		return
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// take gives what was collected, and how much was lost before it. Lines that
// can be read from the store instead are not taken: again is to be asked.
func (h *hub) take(f *follower) (lines []logstore.Found, lost uint64, again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.lost > 0 && f.lost <= patience {
		return nil, 0, true
	}
	lines, lost = f.queue, f.lost
	f.queue, f.bytes, f.lost, f.since = nil, 0, 0, marks{}
	return lines, lost, false
}

// again begins to collect anew when lines were dropped, at most so many, and
// gives what has to be read from the store instead. Nobody may append meanwhile.
func (h *hub) again(f *follower, most uint64) (from marks, needed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.lost == 0 || f.lost > most {
		return nil, false
	}
	from = f.since
	f.since, f.queue, f.bytes, f.lost = marks{}, nil, 0, 0
	return from, true
}

// arrived tells whether a line came after the follower began to collect; then
// it gets it from here. settled is not nil when that is not known before it is
// closed.
func (h *hub) arrived(f *follower, id logstore.ID) (after bool, settled <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	day := dayOf(id)
	if first, ok := f.since[day]; ok {
		return id.Seq >= first.seq, nil
	}
	if h.pending[day] {
		return false, h.settled
	}
	return false, nil
}

// sizeOf is about what a record takes in memory.
func sizeOf(r *logline.Record) int {
	n := 256 + len(r.Service) + len(r.Event) + len(r.Message) + len(r.User) + len(r.Device) + len(r.Session) + len(r.RequestID)
	for i := range r.Fields {
		n += 48 + len(r.Fields[i].Key) + len(r.Fields[i].Value)
	}
	return n
}
