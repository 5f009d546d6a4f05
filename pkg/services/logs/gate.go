package logs

import (
	"context"
	"sync/atomic"
	"time"

	"vpnd/pkg/fault"
)

// gate bounds how much is done at once, and how many wait for it.
type gate struct {
	what    string
	slots   chan struct{}
	waiting atomic.Int64
	most    int64
}

func newGate(slots, waiting int, what string) *gate {
	return &gate{what: what, slots: make(chan struct{}, slots), most: int64(waiting)}
}

// enter waits for a turn. leave has to be called when err is nil.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-g.slots }
	select {
	case g.slots <- struct{}{}:
		return leave, nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.most {
		return nil, fault.New(fault.Throttled, "the log service answers %d %s at once, and no more can wait", cap(g.slots), g.what).
			WithReason("busy").WithRetryAfter(time.Second).WithHint("try again when one of them has ended")
	}
	select {
	case g.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
