//go:build linux

package supervise

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// State is what a service is doing.
type State string

// The states. A service without a heartbeat goes from starting to running;
// one with a heartbeat is never running but ready, unready or unhealthy.
const (
	Disabled  State = "disabled"  // its configuration says that it shall not run
	Stopped   State = "stopped"   // stopped by request, or the supervisor does not run
	Starting  State = "starting"  // a process runs and has not answered yet
	Running   State = "running"   // a process runs; nobody asks whether it is well
	Ready     State = "ready"     // answers, and says that it is ready
	Unready   State = "unready"   // answers, and says that it is not ready
	Unhealthy State = "unhealthy" // has answered before, and missed the last pong
	Stopping  State = "stopping"  // has been told to end
	Backoff   State = "backoff"   // died; started again at NextRetry
	Failed    State = "failed"    // died again and again; tried again at NextRetry, rarely
	Removed   State = "removed"   // only in events: no longer in the configuration
)

// Status is what is known about a service.
type Status struct {
	Name      string     `json:"name"`
	Enabled   bool       `json:"enabled"`
	State     State      `json:"state"`
	Since     time.Time  `json:"since"`            // of State
	Reason    string     `json:"reason,omitempty"` // why this state, in words
	PID       int        `json:"pid,omitempty"`    // 0 without a process
	StartedAt *time.Time `json:"started_at,omitempty"`
	Restarts  int        `json:"restarts"` // starts after the first, asked for or not
	LastExit  *Exit      `json:"last_exit,omitempty"`
	NextRetry *time.Time `json:"next_retry,omitempty"` // in Backoff and Failed

	PongLatency Duration `json:"pong_latency,omitempty"` // of the last pong of this process
	MissedPongs int      `json:"missed_pongs"`           // in a row, after the first pong

	Listening  []string `json:"listening,omitempty"`   // sockets held for it
	StderrTail []string `json:"stderr_tail,omitempty"` // last lines of the last process that ended
}

// Exit tells how a process ended.
type Exit struct {
	Time   time.Time `json:"time"`
	Code   int       `json:"code"`             // exit status; -1 after a signal
	Signal string    `json:"signal,omitempty"` // such as "SIGKILL"
	Words  string    `json:"words"`            // such as "exited with status 1"
}

func (e *Exit) of(state *os.ProcessState) {
	e.Code = state.ExitCode()
	e.Words = fmt.Sprintf("exited with status %d", e.Code)
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = unix.SignalName(ws.Signal())
		e.Words = "killed by " + e.Signal
	}
}

// Event is a change of state or reason.
type Event struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	State   State     `json:"state"`
	Was     State     `json:"was,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	PID     int       `json:"pid,omitempty"`
	// Dropped is how many events the subscriber missed just before this one,
	// because it was slow.
	Dropped int `json:"dropped,omitempty"`
}

// eventBuffer is how many events a subscriber may be behind.
const eventBuffer = 64

// hub hands events to subscribers; a slow one loses the oldest.
type hub struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	ch      chan Event
	dropped int // not yet told
}

// Subscribe gives every event from now on. A subscriber that falls behind
// loses the oldest, and the next event it gets says how many. The function
// ends the subscription and closes the channel; so does the end of Run.
func (s *Supervisor) Subscribe() (<-chan Event, func()) {
	h := &s.events
	sub := &subscriber{ch: make(chan Event, eventBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(sub.ch)
		return sub.ch, func() {}
	}
	h.subs[sub] = struct{}{}
	return sub.ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.remove(sub)
	}
}

func (h *hub) remove(sub *subscriber) {
	if _, ok := h.subs[sub]; ok {
		delete(h.subs, sub)
		close(sub.ch)
	}
}

func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		sub.put(e)
	}
}

func (sub *subscriber) put(e Event) {
	for {
		e.Dropped = sub.dropped
		select {
		case sub.ch <- e:
			sub.dropped = 0
			return
		default:
		}
		select {
		case old := <-sub.ch:
			// What that one was to tell about earlier losses is now for e.
			sub.dropped += 1 + old.Dropped
		default: // the subscriber has just made room
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for sub := range h.subs {
		h.remove(sub)
	}
}
