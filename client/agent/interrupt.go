package agent

import (
	"context"
	"sync"
)

// interrupter ends what Run waits for when a wish comes that makes it pointless.
type interrupter struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil between steps
}

func (i *interrupter) begin(ctx context.Context) (step context.Context, end func()) {
	step, cancel := context.WithCancel(ctx)
	i.mu.Lock()
	i.cancel = cancel
	i.mu.Unlock()
	return step, func() {
		i.mu.Lock()
		i.cancel = nil
		i.mu.Unlock()
		cancel()
	}
}

func (i *interrupter) interrupt() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cancel != nil {
		i.cancel()
	}
}
