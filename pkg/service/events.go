package service

import (
	"context"
	"strings"
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
	last    []events.Event // ring, oldest first
	seq     uint64
	changed chan struct{} // closed and replaced with every event
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
	if len(f.last) == remembered {
		copy(f.last, f.last[1:])
		f.last = f.last[:remembered-1]
	}
	f.last = append(f.last, e)
	close(f.changed)
	f.changed = make(chan struct{})
}

// after gives what is newer than seq, and a channel that tells of more.
func (f *Events) after(seq uint64) ([]events.Event, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := len(f.last)
	for i > 0 && f.last[i-1].Seq > seq {
		i--
	}
	out := append([]events.Event(nil), f.last[i:]...)
	if len(out) > 0 && seq > 0 && out[0].Seq > seq+1 {
		out[0].Missed = out[0].Seq - seq - 1
	}
	return out, f.changed
}

func (f *Events) position(since string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if since == "" {
		return f.seq
	}
	for _, e := range f.last {
		if strings.EqualFold(string(e.ID), since) {
			return e.Seq
		}
	}
	return 0 // an event of an earlier run: everything of this run is new
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
