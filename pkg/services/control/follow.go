//go:build linux

package control

import (
	"context"
	"time"

	"vpnd/pkg/api/events"
)

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// follow gathers one service's events until ctx ends. A connection that breaks
// is made again and goes on after the last event seen; a service that has
// started anew begins at its beginning.
func (c *control) follow(ctx context.Context, service string) {
	// An id that no service knows asks for everything it remembers: what
	// happened while control was away.
	seen := "start"
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := events.Feed.Follow(ctx, c.conns[service], &events.FeedRequest{Since: seen}, func(e events.Event) error {
			seen = string(e.ID)
			c.hub.take(e)
			return nil
		})
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		c.log.Debug("feed.ended", "of", service, "err", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}
