package passwd

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"vpnd/pkg/fault"
)

const (
	defaultQueue = 64
	// Quiet for this long, the memory of the computations goes back to the
	// system. Long enough that a steady trickle of logins does not pay for it.
	idleAfter = 2 * time.Second
	// What a computation is taken to last before the first was measured.
	firstGuess = 200 * time.Millisecond
)

// Workers limits how many computations run at once to the number of cores:
// more would be no quicker and each takes Params.Memory. Callers wait in line,
// up to a limit. Make it with NewWorkers.
type Workers struct {
	params Params
	queue  int
	dummy  string
	slots  chan struct{}
	free   func() // gives memory back to the system

	mu      sync.Mutex
	waiting int
	running int
	usual   time.Duration // a moving average of what one computation lasts
	idle    *time.Timer   // runs when nothing else does
}

// NewWorkers prepares workers that make hashes with p. At most queue callers
// wait (0 means 64); those who come then are told when to try again.
func NewWorkers(p Params, queue int) (*Workers, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if queue <= 0 {
		queue = defaultQueue
	}
	// The dummy's tag is random: no password fits it.
	dummy := stored{Params: p, salt: random(saltBytes), tag: random(tagBytes)}
	return &Workers{
		params: p, queue: queue, dummy: dummy.String(), free: debug.FreeOSMemory,
		slots: make(chan struct{}, slots(p, runtime.GOMAXPROCS(0))), usual: firstGuess,
	}, nil
}

// slots is how many computations run at once: as many as it takes to keep the
// cores busy. One computation uses p.Threads of them by itself, and more at
// once only fight for the caches: measured on two cores with four threads, two
// at once cost 17 % more CPU time each than one after the other.
func slots(p Params, cores int) int {
	return (cores + int(p.Threads) - 1) / int(p.Threads)
}

// Hash is Params.Hash in its turn. A password that breaks the policy does not
// wait for one.
func (w *Workers) Hash(ctx context.Context, password string) (encoded string, err error) {
	if err := Check(password); err != nil {
		return "", err
	}
	if err := w.enter(ctx); err != nil {
		return "", err
	}
	defer w.leave(time.Now())
	return w.params.Hash(password)
}

// Verify is Params.Verify in its turn.
func (w *Workers) Verify(ctx context.Context, encoded, password string) (ok, needsRehash bool, err error) {
	if err := w.enter(ctx); err != nil {
		return false, false, err
	}
	defer w.leave(time.Now())
	return w.params.Verify(encoded, password)
}

// Dummy costs what Verify costs for a hash with the current parameters, and
// fails as Verify fails when the queue is full or ctx ends. Call it for
// accounts that do not exist, so that they take as long as the others.
func (w *Workers) Dummy(ctx context.Context, password string) error {
	_, _, err := w.Verify(ctx, w.dummy, password)
	return err
}

// enter waits for a slot. Who is granted one must leave.
func (w *Workers) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("wait for a password worker: %w", err)
	}
	w.mu.Lock()
	select {
	case w.slots <- struct{}{}:
		w.start()
		w.mu.Unlock()
		return nil
	default:
	}
	if w.waiting >= w.queue {
		retry := w.drain()
		w.mu.Unlock()
		return fault.New(fault.Throttled, "too many sign-ins are waiting").
			WithReason("busy").WithRetryAfter(retry).WithHint("try again in a moment")
	}
	w.waiting++
	w.mu.Unlock()

	select {
	case w.slots <- struct{}{}:
		w.mu.Lock()
		w.waiting--
		w.start()
		w.mu.Unlock()
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		w.waiting--
		w.restSoon()
		w.mu.Unlock()
		return fmt.Errorf("wait for a password worker: %w", ctx.Err())
	}
}

// start counts a computation that begins. The caller holds mu.
func (w *Workers) start() {
	w.running++
	if w.idle != nil {
		w.idle.Stop()
	}
}

func (w *Workers) leave(begun time.Time) {
	w.mu.Lock()
	w.usual += (time.Since(begun) - w.usual) / 8
	w.running--
	w.restSoon()
	w.mu.Unlock()
	<-w.slots
}

// restSoon starts the idle timer when nobody works or waits. The caller holds
// mu.
func (w *Workers) restSoon() {
	switch {
	case w.running > 0 || w.waiting > 0:
	case w.idle == nil:
		w.idle = time.AfterFunc(idleAfter, w.rest)
	default:
		w.idle.Reset(idleAfter)
	}
}

// rest runs once after work has ended.
func (w *Workers) rest() {
	w.mu.Lock()
	busy := w.running > 0
	w.mu.Unlock()
	if !busy {
		w.free()
	}
}

// drain is how long a full queue takes, rounded up to a second. The caller
// holds mu.
func (w *Workers) drain() time.Duration {
	rounds := (w.waiting + w.running + cap(w.slots) - 1) / cap(w.slots)
	d := time.Duration(rounds) * w.usual
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}
