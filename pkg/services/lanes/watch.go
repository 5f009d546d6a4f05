package lanes

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/link"
	"vpnd/pkg/nft"
)

const (
	watchEvery   = 100 * time.Millisecond // interfaces that are gone
	wallEvery    = 250 * time.Millisecond // rules that a stranger changed
	listenEvery  = 5 * time.Second        // between attempts to be told of changes
	compareEvery = 30 * time.Second       // peers compared with the interfaces
)

// Run brings the lanes up and keeps them as they should be until ctx ends. The
// interfaces are left as they are: tunnels outlive us. It owns every goroutine.
func (l *Lanes) Run(ctx context.Context) error {
	if err := l.book.Load(l.bookPath()); err != nil {
		l.log.Warn("endpoints.not_loaded", "err", err)
	}
	l.loadVPN()
	defer func() {
		for _, ln := range l.lanes {
			ln.forget()
		}
	}()
	var all sync.WaitGroup
	all.Go(func() { l.keepWall(ctx) })
	all.Go(func() { l.listen(ctx, "nftables", func(wake func()) error { return nft.Watch(ctx, 0, wake) }) })
	all.Go(func() { l.listen(ctx, "routing rules", func(wake func()) error { return link.WatchRules(ctx, wake) }) })
	for i, ln := range l.lanes {
		all.Go(func() { l.keepUp(ctx, ln) })
		all.Go(func() { each(ctx, l.cfg.CompareEvery, ln.changed, func() { l.compare(ctx, i) }) })
	}
	all.Go(func() { l.keepBook(ctx) })
	all.Wait()
	return nil
}

// each calls fn now and then, and when it is woken, until ctx ends.
func each(ctx context.Context, pause time.Duration, wake <-chan struct{}, fn func()) {
	t := time.NewTicker(pause)
	defer t.Stop()
	for ctx.Err() == nil {
		fn()
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-wake:
		}
	}
}

// keepWall keeps the rules in place. The host forwards packets only after they
// were.
func (l *Lanes) keepWall(ctx context.Context) {
	var host host
	l.adoptTor(ctx)
	each(ctx, wallEvery, l.rewall, func() {
		l.expireTor(ctx)
		if l.guard(ctx) {
			l.prepare(ctx, &host)
		}
	})
}

// guard applies the rules, those of nftables and lane tor's of routing, where they
// are not what they should be, and tells whether they are now.
func (l *Lanes) guard(ctx context.Context) bool {
	drift, err := l.wall.Check(ctx)
	walled := err == nil && drift.OK()
	tor := l.lanes[1]
	sealed, err := tor.sealed()
	sealed = sealed && err == nil
	if walled && sealed {
		l.setWall(nil)
		l.nowGuarded(ctx) // perhaps adopted from an earlier run of ours
		return true
	}
	err = nil
	if !sealed {
		if err = tor.seal(); err == nil {
			l.repaired("the routing rule of " + tor.cfg.Interface + " is missing")
		}
	}
	if !walled { // also when the other failed: each lock holds on its own
		l.flipping.Lock()
		err = errors.Join(err, l.apply(ctx, nft.State{VPN: l.vpnState(), Tor: l.torState()}))
		l.flipping.Unlock()
	}
	if ctx.Err() != nil {
		return false
	}
	if news := l.setWall(err); err != nil {
		if news {
			l.log.Error("firewall.failed", "err", err)
			l.publish(events.Event{Type: "firewall.failed", Message: err.Error()})
		}
		return false
	}
	l.nowGuarded(ctx)
	return true
}

// nowGuarded lets those go on who wait for the rules. What the canary's counters
// hold from an earlier run does not count.
func (l *Lanes) nowGuarded(ctx context.Context) {
	select {
	case <-l.guarded:
	default:
		if _, err := l.wall.Canary(ctx); err != nil {
			l.log.Warn("canary.not_counted", "err", err)
		}
		close(l.guarded)
	}
}

// listen has the rules looked at after every change of somebody's, at once. Where
// the kernel does not tell, the look now and then has to do.
func (l *Lanes) listen(ctx context.Context, to string, watch func(wake func()) error) {
	said := false
	each(ctx, listenEvery, nil, func() {
		err := watch(func() { signal(l.rewall) })
		if ctx.Err() == nil && !said {
			said = true
			l.log.Warn("watch.failed", "of", to, "err", err)
		}
	})
}

// setWall notes how the rules are and tells whether that is news.
func (l *Lanes) setWall(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := err == nil || l.wallErr == nil || err.Error() != l.wallErr.Error()
	l.wallErr = err
	return news
}

// keepUp brings a lane up when it is not there. No interface is made before the
// rules are in place.
func (l *Lanes) keepUp(ctx context.Context, ln *lane) {
	select {
	case <-l.guarded:
	case <-ctx.Done():
		return
	}
	var said string
	var failures backoff
	each(ctx, watchEvery, ln.wake, func() {
		alive, err := ln.probe(ctx)
		if !alive {
			if failures.resting() {
				return
			}
			var fresh bool
			if fresh, err = ln.bringUp(ctx); err == nil {
				l.log.Info("lane.interface_up", "lane", ln.name, "interface", ln.cfg.Interface, "backend", ln.describe().Backend, "adopted", !fresh)
				l.publish(events.Event{Type: "lane.interface_up", Message: "interface " + ln.cfg.Interface + " is up", Data: map[string]string{"lane": string(ln.name)}})
				signal(ln.changed)
			}
			failures.note(err)
		}
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			l.log.Error("lane.failed", "lane", ln.name, "err", err)
			l.publish(events.Event{Type: "lane.failed", Reason: string(ln.name), Message: said, Data: map[string]string{"lane": string(ln.name)}})
		}
	})
}

// backoff spaces out attempts that keep failing.
type backoff struct {
	pause time.Duration
	until time.Time
}

func (b *backoff) resting() bool { return time.Now().Before(b.until) }

func (b *backoff) note(err error) {
	if err == nil {
		*b = backoff{}
		return
	}
	b.pause = min(max(2*b.pause, watchEvery), 2*time.Second)
	b.until = time.Now().Add(b.pause)
}

// compare brings back what a stranger, or the death of wireguard-go, has
// changed of a lane's peers. It keeps single changes waiting only when there is
// something to do.
func (l *Lanes) compare(ctx context.Context, i int) {
	ln := l.lanes[i]
	want, complete := l.wants()
	if complete {
		p, err := ln.compare(ctx, want, i, l.book)
		if err == nil && p.difference().none() {
			return
		}
	}
	l.changing.Lock() // also waits for a Sync under way
	defer l.changing.Unlock()
	if want, complete = l.wants(); !complete {
		return // what is missing, and what too many, nobody has told yet
	}
	d, err := ln.equalize(ctx, want, i, l.book)
	if err != nil {
		if ctx.Err() == nil {
			l.log.Warn("peers.not_compared", "lane", ln.name, "err", err)
		}
		return
	}
	if !d.none() {
		l.log.Info("peers.restored", "lane", ln.name, "added", d.added, "changed", d.changed, "removed", d.removed)
	}
}

// wants gives a copy of the wanted peers, and whether they are all.
func (l *Lanes) wants() (map[id.Device]wanted, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.synced {
		return nil, false
	}
	return maps.Clone(l.want), true
}
