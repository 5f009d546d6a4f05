package lanes

import (
	"context"
	"errors"
	"time"

	"vpnd/pkg/wgdev"
)

// Endpoints are looked at often, because whoever was not written down when
// everything dies at once goes unheard for 15 seconds, but looking reads all peers.
// So it may take no more than one part in lookShare of the time.
const (
	lookEvery  = 500 * time.Millisecond
	lookSeldom = 5 * time.Second
	lookShare  = 50
)

// keepBook writes down where peers are heard from, soon after that has changed.
func (l *Lanes) keepBook(ctx context.Context) {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.remember()
			return
		case <-timer.C:
		}
		start := time.Now()
		for _, ln := range l.lanes {
			l.look(ctx, ln)
		}
		l.remember()
		timer.Reset(lookPause(time.Since(start)))
	}
}

// lookPause is how long to rest after a look at the endpoints that took so long.
func lookPause(took time.Duration) time.Duration {
	return min(max(lookEvery, lookShare*took), lookSeldom)
}

// look reads a lane's endpoints. An interface that is not there is the watcher's
// affair.
func (l *Lanes) look(ctx context.Context, ln *lane) {
	ln.mu.RLock()
	dev := ln.dev
	ln.mu.RUnlock()
	if dev == nil {
		return
	}
	peers, err := dev.Peers(ctx)
	if errors.Is(err, wgdev.ErrGone) {
		ln.lost(dev)
	}
	if err == nil {
		l.observe(peers)
	}
}

// observe notes endpoints that were read just now. A peer that was removed
// meanwhile would stay in the book for ever, so those that nobody wants are left
// out. Before the first Sync nobody knows who that is.
func (l *Lanes) observe(peers []wgdev.PeerState) {
	l.mu.Lock()
	defer l.mu.Unlock() // keeps Remove, which forgets after it has changed byKey, behind us
	if !l.synced {
		l.book.Observe(peers)
		return
	}
	known := make([]wgdev.PeerState, 0, len(peers))
	for _, p := range peers {
		if _, ok := l.byKey[p.PublicKey]; ok {
			known = append(known, p)
		}
	}
	l.book.Observe(known)
}

func (l *Lanes) remember() {
	if err := l.book.Save(l.bookPath()); err != nil {
		l.log.Warn("endpoints.not_saved", "err", err)
	}
}
