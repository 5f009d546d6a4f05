package auth

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

// guard slows down guessing. Every attempt takes one from several buckets and
// gets it back when it turns out to be no failed guess, so attempts that run
// at the same time are counted before it is known how they end.
//
// A bucket that holds n and refills over the window is kept as one instant:
// the time at which it will be full again (the generic cell rate algorithm of
// ITU-T I.371 with a burst of n). A bucket that is full is not kept at all, so
// memory is bounded by the global bucket: strangers cannot take from more
// buckets in one window than it lets through.
//
// An attempt from a device of the account, or from an address that one of them
// signed in from, has one bucket of its own instead of all others: whoever
// attacks the account or the whole server cannot lock it out. A guard may be
// used concurrently.
type guard struct {
	limits config.Guard
	now    func() time.Time

	mu      sync.Mutex
	full    map[bucket]time.Time // when the bucket is full again
	changed map[bucket]struct{}  // since the journal was written
	refused map[bucket]struct{}  // that have refused since they were last full
	open    map[bucket]int       // attempts whose outcome is not known yet
	settled chan struct{}        // closed and replaced when one is known
}

// bucket names a bucket; its first letter is its kind.
type bucket string

const globalBucket bucket = "g"

func accountBucket(user id.User) bucket { return bucket("a:" + string(user)) }
func deviceBucket(dev id.Device) bucket { return bucket("d:" + string(dev)) }
func homeBucket(user id.User, address string) bucket {
	return bucket("h:" + string(user) + " " + address)
}
func addressBucket(address string) bucket { return bucket("n:" + address) }

// strangerBucket is for a login name that no account has. It is not written
// down: people type passwords into the wrong field.
func strangerBucket(login string) bucket { return bucket("x:" + strings.ToLower(login)) }

func (b bucket) journalled() bool { return !strings.HasPrefix(string(b), "x:") }

// addressOf is how addresses are counted: an IPv6 /64 is one, for that is what
// one customer has, and so is everything that is no address.
func addressOf(remote string) string {
	var addr netip.Addr
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		addr = ap.Addr()
	} else if addr, err = netip.ParseAddr(remote); err != nil {
		return "unknown"
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		p, _ := addr.Prefix(64) // 64 is always valid for IPv6
		return p.String()
	}
	return addr.String()
}

func newGuard(limits config.Guard, now func() time.Time) *guard {
	return &guard{
		limits: limits, now: now,
		full: map[bucket]time.Time{}, changed: map[bucket]struct{}{}, refused: map[bucket]struct{}{},
		open: map[bucket]int{}, settled: make(chan struct{}),
	}
}

// size is how many failures a bucket holds.
func (g *guard) size(b bucket) int {
	switch b[0] {
	case 'g':
		return g.limits.Global
	case 'n':
		return g.limits.PerAddress
	}
	return g.limits.PerAccount
}

// interval is how long one failure takes to be forgotten.
func (g *guard) interval(b bucket) time.Duration {
	return g.limits.Window.D() / time.Duration(g.size(b))
}

// ticket is what one attempt took.
type ticket struct {
	g       *guard
	buckets []bucket
}

// take takes one from every bucket, or from none if one of them is empty. The
// error is throttled and tells when to come back; first says that this bucket
// has not refused anybody before, for the log. An attempt that is refused only
// because others are being judged waits for them: twenty devices that come
// back at once with the right password are no attack. The caller settles the
// ticket as soon as the outcome is known.
func (g *guard) take(ctx context.Context, buckets ...bucket) (t ticket, first bool, err error) {
	for {
		t, first, settled, err := g.try(buckets)
		if err == nil || settled == nil {
			return t, first, err
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return t, false, ctx.Err()
		}
	}
}

// try is take without waiting; where waiting can help, settled tells when to
// try again.
func (g *guard) try(buckets []bucket) (t ticket, first bool, settled <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	g.prune(now)
	var wait time.Duration
	var empty []bucket
	hope := true
	for _, b := range buckets {
		over := g.level(b, now).Add(g.interval(b)).Sub(now) - g.limits.Window.D()
		if over > 0 {
			wait = max(wait, over)
			empty = append(empty, b)
			hope = hope && over <= time.Duration(g.open[b])*g.interval(b)
		}
	}
	if wait > 0 && hope {
		return ticket{}, false, g.settled, throttled(wait)
	}
	if wait > 0 {
		for _, b := range empty {
			if _, known := g.refused[b]; !known {
				g.refused[b], first = struct{}{}, true
			}
		}
		return ticket{}, first, nil, throttled(wait)
	}
	for _, b := range buckets {
		g.set(b, g.level(b, now).Add(g.interval(b)))
		g.open[b]++
	}
	return ticket{g, buckets}, false, nil, nil
}

// settle says that the outcome of the attempt is known: what it took is either
// given back by now or a failure.
func (t ticket) settle() {
	if t.g == nil {
		return
	}
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	for _, b := range t.buckets {
		if t.g.open[b]--; t.g.open[b] <= 0 {
			delete(t.g.open, b)
		}
	}
	close(t.g.settled)
	t.g.settled = make(chan struct{})
}

// giveBack undoes take for all its buckets, or for those named.
func (t ticket) giveBack(only ...bucket) {
	if t.g == nil {
		return
	}
	if len(only) == 0 {
		only = t.buckets
	}
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	for _, b := range only {
		if until, ok := t.g.full[b]; ok {
			t.g.set(b, until.Add(-t.g.interval(b)))
		}
	}
}

// forget fills a bucket.
func (g *guard) forget(b bucket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.full[b]; ok {
		g.set(b, time.Time{})
	}
}

// level is when the bucket is full again, at least now.
func (g *guard) level(b bucket, now time.Time) time.Time {
	if until := g.full[b]; until.After(now) {
		return until
	}
	return now
}

func (g *guard) set(b bucket, until time.Time) {
	if b.journalled() {
		g.changed[b] = struct{}{}
	}
	g.full[b] = until
}

// prune drops buckets that are full. It looks at a few at a time, so that no
// attempt pays for all.
func (g *guard) prune(now time.Time) {
	looked := 0
	for b, until := range g.full {
		if !until.After(now) {
			delete(g.full, b)
			delete(g.refused, b)
			if b.journalled() {
				g.changed[b] = struct{}{}
			}
		}
		if looked++; looked == 8 {
			return
		}
	}
}

// restore sets a bucket to what the journal says.
func (g *guard) restore(b bucket, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if longest := g.now().Add(g.limits.Window.D()); until.After(longest) {
		until = longest // written with other limits or another clock
	}
	g.full[b] = until
}

// changes gives what the journal does not have yet; a zero time means the
// bucket is full.
func (g *guard) changes() map[bucket]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[bucket]time.Time, len(g.changed))
	for b := range g.changed {
		out[b] = g.full[b]
	}
	clear(g.changed)
	return out
}

// unwritten takes changes back that could not be written.
func (g *guard) unwritten(changes map[bucket]time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for b := range changes {
		g.changed[b] = struct{}{}
	}
}

func throttled(wait time.Duration) error {
	wait = wait.Truncate(time.Second) + time.Second
	return fault.New(fault.Throttled, "too many failed sign-ins").WithReason("throttled").
		WithHint("try again in %s", wait).WithRetryAfter(wait)
}
