package gateway

import (
	"context"
	"sync"
	"time"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

const (
	// maxBatch is how many heartbeats one call carries.
	maxBatch = 512
	// travelling is how many calls are on their way at once: one fills while
	// one travels.
	travelling = 2
	// beatWait bounds the wait for a place in the queue, and that for an answer.
	beatWait = 5 * time.Second
)

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
	done   chan struct{} // closed when the three above are valid
}

func newBeats(conn *rpc.Conn) *beats {
	return &beats{conn: conn, queue: make(chan *beat, 4*maxBatch)}
}

// send gives the answer to one heartbeat and the heartbeat TTL in seconds.
func (b *beats) send(ctx context.Context, item sessions.BeatItem) (sessions.BeatResult, int, error) {
	w := &beat{item: item, done: make(chan struct{})}
	full := time.NewTimer(beatWait)
	defer full.Stop()
	select {
	case b.queue <- w:
	case <-ctx.Done():
		return sessions.BeatResult{}, 0, ctx.Err()
	case <-full.C:
		return sessions.BeatResult{}, 0, fault.New(fault.Throttled, "too many heartbeats at once").WithRetryAfter(beatWait)
	}
	select {
	case <-w.done:
		return w.result, w.ttl, w.err
	case <-ctx.Done():
		return sessions.BeatResult{}, 0, ctx.Err()
	}
}

// run sends until ctx ends. Heartbeats that are queued then get no answer.
func (b *beats) run(ctx context.Context) {
	var all sync.WaitGroup
	for range travelling {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case first := <-b.queue:
					b.deliver(ctx, b.gather(first))
				}
			}
		})
	}
	all.Wait()
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
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
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

// refusedBeat says why a heartbeat found no session, in the words that decide
// what the client does next: go away, sign in, or connect again.
func refusedBeat(r sessions.BeatResult) error {
	switch r.Why {
	case sessions.UserSuspended:
		return fault.New(fault.Denied, "the account is suspended").WithReason("suspended")
	case sessions.UserDeleted, sessions.DeviceDeleted:
		return fault.New(fault.Unauthenticated, "the account or device was deleted").WithReason(string(r.Why))
	case sessions.LoggedOut, sessions.TokenReuse:
		return fault.New(fault.Unauthenticated, "the device is signed out").WithReason("signed_out").WithHint("sign in again")
	case "":
		return fault.New(fault.Conflict, "no session is open").WithReason(r.Refused).WithHint("connect again")
	}
	return fault.New(fault.Conflict, "the session is closed (%s)", r.Why).WithReason(r.Refused).
		WithFields(fault.Field{Path: "session", Message: string(r.Why)}).WithHint("connect again")
}
