package lanes

import (
	"context"
	"maps"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/link"
)

const (
	watchEvery     = 100 * time.Millisecond // interfaces that are gone
	wallEvery      = time.Second            // rules that a stranger changed
	endpointsEvery = 5 * time.Second        // endpoints written down
	equalEvery     = 30 * time.Second       // peers compared with the interfaces
)

// Run brings the lanes up and keeps them as they should be until ctx ends. The
// interfaces are left as they are: tunnels outlive us.
func (l *Lanes) Run(ctx context.Context) error {
	if err := l.book.Load(l.bookPath()); err != nil {
		l.log.Warn("endpoints_not_loaded", "err", err)
	}
	next := map[string]time.Time{}
	due := func(name string, every time.Duration) bool {
		now := time.Now()
		if now.Before(next[name]) {
			return false
		}
		next[name] = now.Add(every)
		return true
	}
	l.guard(ctx) // the rules first: no interface is up without them
	l.forward(ctx)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		l.restore(ctx)
		if due("wall", wallEvery) {
			l.guard(ctx)
		}
		if due("endpoints", endpointsEvery) {
			l.remember()
		}
		if due("equal", equalEvery) && l.synced.Load() {
			l.compare(ctx)
		}
		select {
		case <-ctx.Done():
			l.remember()
			return nil
		case <-tick.C:
		}
	}
}

// restore brings up the lanes that are not there, with the peers they should
// have.
func (l *Lanes) restore(ctx context.Context) {
	for i, ln := range l.lanes {
		if ln.up() {
			continue
		}
		before := ln.describe().Reason
		fresh, err := ln.bringUp(ctx)
		if err != nil {
			if err.Error() != before { // say it once
				l.log.Error("lane_failed", "lane", ln.name, "err", err)
				l.publish(events.Event{Type: "lane.failed", Reason: string(ln.name), Message: err.Error()})
			}
			continue
		}
		l.log.Info("lane_up", "lane", ln.name, "interface", ln.cfg.Interface, "backend", ln.describe().Backend, "adopted", !fresh)
		l.publish(events.Event{Type: "lane.up", Reason: string(ln.name)})
		if l.synced.Load() {
			l.compareLane(ctx, i)
		}
	}
}

// guard applies the rules where they are not what they should be.
func (l *Lanes) guard(ctx context.Context) {
	drift, err := l.wall.Check(ctx)
	if err == nil && drift.OK() {
		l.setWall(nil)
		return
	}
	err = l.wall.Apply(ctx, l.wallState)
	if l.setWall(err) && err != nil {
		l.log.Error("firewall_failed", "err", err)
		l.publish(events.Event{Type: "firewall.failed", Message: err.Error()})
	}
	if err == nil && l.guarded {
		l.log.Warn("firewall_repaired", "drift", drift.String())
		l.publish(events.Event{Type: "firewall.repaired", Message: drift.String()})
	}
	l.guarded = l.guarded || err == nil
}

// setWall notes how the rules are and tells whether that is news.
func (l *Lanes) setWall(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := (err == nil) != (l.wallErr == nil)
	l.wallErr = err
	return news
}

// forward lets the host forward packets; without it no lane carries anything.
func (l *Lanes) forward(ctx context.Context) {
	links, err := link.Open()
	if err == nil {
		defer links.Close()
		var changed []string
		if changed, err = links.EnableForwarding(ctx); len(changed) > 0 {
			l.log.Info("forwarding_enabled", "changed", changed)
		}
	}
	if err != nil {
		l.log.Error("forwarding_not_enabled", "err", err)
		l.publish(events.Event{Type: "lane.failed", Message: "forwarding could not be enabled: " + err.Error()})
	}
}

func (l *Lanes) remember() {
	if err := l.book.Save(l.bookPath()); err != nil {
		l.log.Warn("endpoints_not_saved", "err", err)
	}
}

// compare brings back peers that a stranger changed or removed.
func (l *Lanes) compare(ctx context.Context) {
	for i := range l.lanes {
		l.compareLane(ctx, i)
	}
}

func (l *Lanes) compareLane(ctx context.Context, i int) {
	l.changing.Lock()
	defer l.changing.Unlock()
	l.mu.Lock()
	want := maps.Clone(l.want)
	l.mu.Unlock()
	d, err := l.lanes[i].equalize(ctx, want, i, l.book)
	if err != nil {
		l.log.Warn("peers_not_compared", "lane", l.lanes[i].name, "err", err)
		return
	}
	if d != (difference{}) {
		l.log.Info("peers_restored", "lane", l.lanes[i].name, "added", d.added, "changed", d.changed, "removed", d.removed)
	}
}
