package agent

import (
	"reflect"
	"sync"

	"vpnd/client/agentapi"
)

// board shows the latest status to whoever looks.
type board struct {
	ended chan struct{} // closed when Run has ended

	mu      sync.Mutex
	status  agentapi.Status
	changed chan struct{} // closed at the next change
}

func newBoard() *board { return &board{ended: make(chan struct{}), changed: make(chan struct{})} }

// set wakes those who watch, unless only counters moved.
func (b *board) set(s agentapi.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	same := reflect.DeepEqual(still(b.status), still(s))
	b.status = s
	if !same {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

func still(s agentapi.Status) agentapi.Status {
	s.RxBytes, s.TxBytes, s.LastHandshake = 0, 0, nil
	s.Heartbeat.LastOK = nil
	return s
}

// get gives the status and a channel that is closed when it is outdated.
func (b *board) get() (agentapi.Status, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status, b.changed
}
