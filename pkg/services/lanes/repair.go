package lanes

import (
	"context"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/nft"
)

// apply makes a state hold and tells of what it found damaged. The caller holds
// flipping.
func (l *Lanes) apply(ctx context.Context, s nft.State) error {
	drift, err := l.wall.Apply(ctx, s)
	if err == nil && !drift.OK() {
		l.repaired(drift.String())
	}
	return err
}

// tellEvery is how often the same repair is told again: somebody may be at war
// with us.
const tellEvery = time.Second

// repairs counts what was put right of others' changes.
type repairs struct {
	count uint64
	last  string
	told  time.Time // of last
}

// repaired tells that a change of the rules by somebody was put right. Before the
// rules were in place for the first time there is nothing to repair.
func (l *Lanes) repaired(what string) {
	select {
	case <-l.guarded:
	default:
		return
	}
	l.mu.Lock()
	l.repairs.count++
	now := time.Now()
	quiet := what == l.repairs.last && now.Sub(l.repairs.told) < tellEvery
	if !quiet {
		l.repairs.last, l.repairs.told = what, now
	}
	l.mu.Unlock()
	if quiet {
		return
	}
	l.log.Warn("firewall.repaired", "drift", what)
	l.publish(events.Event{Type: "firewall.repaired", Message: what})
}
