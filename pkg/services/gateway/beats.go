package gateway

import (
	"context"
	"time"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// maxBatch is how many heartbeats one call carries.
const maxBatch = 512

// beats gathers heartbeats that arrive while a call is on its way and sends
// them together: alone, one goes at once; in a crowd, a hundred share a call.
type beats struct {
	conn  *rpc.Conn
	queue chan *beat
}

type beat struct {
	item   sessions.BeatItem
	result sessions.BeatResult
	ttl    int
	err    error
	done   chan struct{}
}

func newBeats(conn *rpc.Conn) *beats {
	return &beats{conn: conn, queue: make(chan *beat, 4*maxBatch)}
}

// send gives the answer to one heartbeat and the heartbeat TTL in seconds.
func (b *beats) send(ctx context.Context, item sessions.BeatItem) (sessions.BeatResult, int, error) {
	w := &beat{item: item, done: make(chan struct{})}
	select {
	case b.queue <- w:
	case <-ctx.Done():
		return sessions.BeatResult{}, 0, ctx.Err()
	case <-time.After(5 * time.Second):
		return sessions.BeatResult{}, 0, fault.New(fault.Throttled, "too many heartbeats at once").WithRetryAfter(5 * time.Second)
	}
	select {
	case <-w.done:
		return w.result, w.ttl, w.err
	case <-ctx.Done():
		return sessions.BeatResult{}, 0, ctx.Err()
	}
}

// run sends until ctx ends, two calls at a time: one fills while one travels.
func (b *beats) run(ctx context.Context) {
	const travelling = 2
	done := make(chan struct{}, travelling)
	for range travelling {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-ctx.Done():
					return
				case first := <-b.queue:
					b.deliver(ctx, b.gather(first))
				}
			}
		}()
	}
	for range travelling {
		<-done
	}
}

func (b *beats) gather(first *beat) []*beat {
	batch := []*beat{first}
	for len(batch) < maxBatch {
		select {
		case w := <-b.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

func (b *beats) deliver(ctx context.Context, batch []*beat) {
	req := &sessions.BeatRequest{}
	for _, w := range batch {
		req.Body.Beats = append(req.Body.Beats, w.item)
	}
	res, err := sessions.Heartbeat.Call(ctx, b.conn, req)
	if err == nil && len(res.Results) != len(batch) {
		err = fault.New(fault.Unavailable, "heartbeats were answered incompletely")
	}
	for i, w := range batch {
		if w.err = err; err == nil {
			w.result, w.ttl = res.Results[i], res.HeartbeatTTL
		}
		close(w.done)
	}
}
