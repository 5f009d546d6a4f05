package sessions

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// everybody is the weight that excludes all sharers of a lock.
const everybody = 1 << 30

// keyLocks is a lock for every key in use. One that waits gives up with its
// context; who came first goes first, so that sharers do not keep out one who
// wants the key alone.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sem   *semaphore.Weighted
	users int
}

// lock takes key alone and gives the function that lets it go.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	return l.take(ctx, key, everybody)
}

// share takes key together with others who share it.
func (l *keyLocks) share(ctx context.Context, key string) (unlock func(), err error) {
	return l.take(ctx, key, 1)
}

func (l *keyLocks) take(ctx context.Context, key string, weight int64) (func(), error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*keyLock{}
	}
	k := l.held[key]
	if k == nil {
		k = &keyLock{sem: semaphore.NewWeighted(everybody)}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.held, key)
		}
	}
	if err := k.sem.Acquire(ctx, weight); err != nil {
		leave()
		return nil, err
	}
	return func() { k.sem.Release(weight); leave() }, nil
}

// gate lets single changes through together, and one who must be alone.
type gate struct{ sem *semaphore.Weighted }

func newGate() gate { return gate{semaphore.NewWeighted(everybody)} }

// share and close give the function that lets go.
func (g gate) share(ctx context.Context) (func(), error) { return g.take(ctx, 1) }
func (g gate) close(ctx context.Context) (func(), error) { return g.take(ctx, everybody) }

func (g gate) take(ctx context.Context, weight int64) (func(), error) {
	if err := g.sem.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { g.sem.Release(weight) }, nil
}
