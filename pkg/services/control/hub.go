//go:build linux

package control

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
)

const (
	remembered = 10_000 // events in memory
	patience   = 1_000  // events a reader may lag behind before it loses the oldest
)

// hub is the memory of all services' events and whoever follows them.
type hub struct {
	service string

	mu      sync.Mutex
	ring    []events.Event // ring[i%remembered] is the event that arrived as number i
	next    uint64         // number of the next event
	own     uint64         // sequence of control's own events
	changed chan struct{}  // closed and replaced with every event
}

func newHub(service string) *hub {
	return &hub{service: service, ring: make([]events.Event, 0, 64), changed: make(chan struct{})}
}

// publish adds an event of control's own.
func (h *hub) publish(e events.Event) {
	h.mu.Lock()
	h.own++
	e.ID, e.Time, e.Seq, e.Service = id.NewEvent(), time.Now().UTC(), h.own, h.service
	h.add(e)
	h.mu.Unlock()
}

// take adds an event that another service told.
func (h *hub) take(e events.Event) {
	h.mu.Lock()
	h.add(e)
	h.mu.Unlock()
}

func (h *hub) add(e events.Event) {
	if len(h.ring) < remembered {
		h.ring = append(h.ring, e)
	} else {
		h.ring[h.next%remembered] = e
	}
	h.next++
	close(h.changed)
	h.changed = make(chan struct{})
}

// after gives the matching events that arrived as number from or later, how
// many were forgotten before they could be looked at, the number to go on
// with, and a channel that tells of more.
func (h *hub) after(from uint64, match func(*events.Event) bool) (batch []events.Event, lost, next uint64, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := h.next - uint64(len(h.ring))
	if from < oldest {
		lost, from = oldest-from, oldest
	}
	for i := from; i < h.next; i++ {
		if e := &h.ring[i%remembered]; match(e) {
			batch = append(batch, *e)
		}
	}
	return batch, lost, h.next, h.changed
}

func (h *hub) position() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next
}

// stream sends what was asked for: first what is remembered, in order of
// time, then new events as they arrive.
func (h *hub) stream(ctx context.Context, req *api.EventsRequest, send func(events.Event) error) error {
	match := matcher(req)
	from := uint64(0)
	if req.Follow && req.Since.IsZero() {
		from = h.position()
	}
	batch, _, next, changed := h.after(from, match)
	// After a restart of control the services repeat what they remember, one
	// after the other.
	slices.SortStableFunc(batch, func(a, b events.Event) int { return a.Time.Compare(b.Time) })
	for {
		for _, e := range batch {
			if err := send(e); err != nil {
				return err
			}
		}
		if !req.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		var lost uint64
		batch, lost, next, changed = h.after(next, match)
		if more := len(batch) - patience; more > 0 {
			batch, lost = batch[more:], lost+uint64(more)
		}
		if lost > 0 && len(batch) > 0 {
			batch[0].Missed += lost
		}
	}
}

func matcher(req *api.EventsRequest) func(*events.Event) bool {
	return func(e *events.Event) bool {
		switch {
		case req.Type != "" && e.Type != req.Type && !strings.HasPrefix(e.Type, req.Type+"."):
			return false
		case req.User != "" && e.User != req.User:
			return false
		case !req.Since.IsZero() && e.Time.Before(req.Since):
			return false
		}
		return true
	}
}
