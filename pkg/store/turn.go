package store

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// errClosed is what take returns after close.
var errClosed = errors.New("closed")

// turn is a first-come, first-served lock. Unlike a mutex it can be given up
// while waiting, and its holder can ask whether somebody waits and hand it on
// in the same step, so that a group commit is never left without a finisher.
// The zero value is free.
type turn struct {
	mu     sync.Mutex
	held   bool
	closed bool
	queue  list.List // of chan struct{}, closed when the turn is granted
}

// take waits for the turn. When ctx ends first the turn is not held.
func (t *turn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return errClosed
	}
	if !t.held {
		t.held = true
		t.mu.Unlock()
		return nil
	}
	granted := make(chan struct{})
	place := t.queue.PushBack(granted)
	t.mu.Unlock()

	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-granted:
		// The turn came first: it must be used, because the holder before
		// may have left an open transaction to us.
		return nil
	default:
	}
	t.queue.Remove(place)
	return ctx.Err()
}

// passToWaiting hands the turn to the longest waiting and tells whether there
// was one; if not, the caller still holds it.
func (t *turn) passToWaiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.grantNext()
}

// pass hands the turn on, or frees it.
func (t *turn) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.grantNext() {
		t.held = false
	}
}

func (t *turn) grantNext() bool {
	first := t.queue.Front()
	if first == nil {
		return false
	}
	close(t.queue.Remove(first).(chan struct{}))
	return true
}

// close refuses later takes, waits for those queued before it and keeps the
// turn for ever. It reports false when it was closed before.
func (t *turn) close() bool {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return false
	}
	t.closed = true
	if !t.held {
		t.held = true
		t.mu.Unlock()
		return true
	}
	granted := make(chan struct{})
	t.queue.PushBack(granted)
	t.mu.Unlock()
	<-granted
	return true
}
