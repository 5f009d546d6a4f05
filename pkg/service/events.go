package service

import (
	"context"
	"sync"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
)

// remembered is how many events a reader may lag behind before it loses the
// oldest.
const remembered = 1000

// Events is the feed of one service: the last events, and whoever follows.
type Events struct {
	service string
	mu      sync.Mutex
	ring    []events.Event // event number n is ring[(n-1)%remembered]
	seq     uint64         // number of the last event
	changed chan struct{}  // closed and replaced with every event
}

// NewEvents makes an empty feed.
func NewEvents(service string) *Events {
	return &Events{service: service, changed: make(chan struct{})}
}

// Publish adds an event; id, time, sequence and service are filled in. It
// never blocks.
func (f *Events) Publish(e events.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	e.ID, e.Time, e.Seq, e.Service = id.NewEvent(), time.Now().UTC(), f.seq, f.service
	if len(f.ring) < remembered {
		f.ring = append(f.ring, e)
	} else {
		f.ring[(e.Seq-1)%remembered] = e
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// forgotten is the number of the last event that is no longer remembered; it
// wants mu held.
func (f *Events) forgotten() uint64 { return f.seq - uint64(len(f.ring)) }

// after gives the events behind number seq, and a channel that tells of more.
func (f *Events) after(seq uint64) ([]events.Event, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missed := uint64(0)
	if oldest := f.forgotten(); seq < oldest {
		missed, seq = oldest-seq, oldest
	}
	out := make([]events.Event, 0, f.seq-seq)
	for n := seq; n < f.seq; n++ {
		out = append(out, f.ring[n%remembered])
	}
	if len(out) > 0 {
		out[0].Missed += missed
	}
	return out, f.changed
}

// position gives the number of the last event that a reader has seen. One that
// is not known is of an earlier run: everything of this run is new.
func (f *Events) position(since string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if since == "" {
		return f.seq
	}
	for _, e := range f.ring {
		if string(e.ID) == since {
			return e.Seq
		}
	}
	return f.forgotten()
}

// Feed serves events.Feed.
func (f *Events) Feed(ctx context.Context, req *events.FeedRequest, send func(events.Event) error) error {
	seq := f.position(req.Since)
	for {
		batch, changed := f.after(seq)
		for _, e := range batch {
			if err := send(e); err != nil {
				return err
			}
			seq = e.Seq
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
