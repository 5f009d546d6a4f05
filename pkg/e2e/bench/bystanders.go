//go:build linux

package main

import (
	"context"
	"sync"
	"time"

	"vpnd/pkg/api/users"
	"vpnd/pkg/e2e/apiclient"
)

// observed is one call of a bystander.
type observed struct {
	stream     string
	begin, end time.Time
	err        error
}

// bystanders are clients and an operator who go on working, at an easy pace,
// while services are killed.
type bystanders struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	calls []observed
}

// startBystanders signs the clients in and lets all of them begin.
func (s *suite) startBystanders(ctx context.Context) (*bystanders, error) {
	var clients []*apiclient.Client
	drop := func() {
		for _, c := range clients {
			c.Conn.CloseIdle()
		}
	}
	for range 3 {
		c, err := s.visitor(ctx, "bystander")
		if err == nil {
			clients = append(clients, c)
			err = freshKey(ctx, c)
		}
		if err != nil {
			drop()
			return nil, err
		}
	}
	beating, connecting, renewing := clients[0], clients[1], clients[2]
	ctx, cancel := context.WithCancel(ctx)
	b := &bystanders{cancel: cancel}
	context.AfterFunc(ctx, drop)
	b.loop(ctx, "heartbeat", 5*time.Millisecond, func() error { _, err := beating.Beat(ctx); return err })
	b.loop(ctx, "initiate", 20*time.Millisecond, func() error { return freshKey(ctx, connecting) })
	b.loop(ctx, "user list", 10*time.Millisecond, func() error {
		_, err := users.ListUsers.Call(ctx, s.ops, &users.ListRequest{Limit: 10})
		return err
	})
	b.loop(ctx, "reauth", 20*time.Millisecond, func() error {
		err := renewing.Reauth(ctx)
		if err != nil && ctx.Err() == nil {
			// Whether the token was spent is not known: sign in again, uncounted.
			s.signInAgain(ctx, renewing)
		}
		return err
	})
	return b, nil
}

func freshKey(ctx context.Context, c *apiclient.Client) error {
	if err := c.NewKey(); err != nil {
		return err
	}
	_, err := c.Initiate(ctx)
	return err
}

// signInAgain tries until it is in, or ctx ends.
func (s *suite) signInAgain(ctx context.Context, c *apiclient.Client) {
	user, did := c.Tokens.User.Username, c.Tokens.DeviceID
	for ctx.Err() == nil && c.Login(ctx, user, password, "bystander", did) != nil {
		_ = pause(ctx, 20*time.Millisecond) // ended by ctx, which is looked at above
	}
}

// loop makes a call again and again, with a pause after each.
func (b *bystanders) loop(ctx context.Context, stream string, every time.Duration, call func() error) {
	b.wg.Go(func() {
		for {
			c := observed{stream: stream, begin: time.Now()}
			c.err = call()
			c.end = time.Now()
			if ctx.Err() != nil {
				return // the call was cut off from this side
			}
			b.mu.Lock()
			b.calls = append(b.calls, c)
			b.mu.Unlock()
			if pause(ctx, every) != nil {
				return
			}
		}
	})
}

// stop ends them all and gives what they saw.
func (b *bystanders) stop() []observed {
	b.cancel()
	b.wg.Wait()
	return b.calls
}
