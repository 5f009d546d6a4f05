package tor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"vpnd/pkg/services/tor/streams"
	"vpnd/pkg/torctl"
)

// connect makes the connection to tor, from which on streams are attached: tor
// leaves them to us alone.
func (k *keeper) connect(ctx context.Context) (*torctl.Client, error) {
	c, err := torctl.Dial(ctx, k.paths.socket())
	if err != nil {
		return nil, err
	}
	version, err := c.Version(ctx)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	k.firstLook(ctx)
	// The connection's life is that of the goroutines below; until they run, ctx ends it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	go func() { <-c.Done(); end() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	a, feed, err := streams.Start(life, c, k.rules(), k.paths.journal(), fmt.Sprintf("%d-%s-%s", k.proc.PID, k.proc.Start, k.proc.Boot), k.log)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	k.serving.Go(func() { a.Run(life, feed) })
	k.serving.Go(func() { k.followBook(life) })
	k.serving.Go(func() { k.followClock(life, c) })
	k.mu.Lock()
	k.client, k.attacher, k.status.Version = c, a, version
	k.mu.Unlock()
	return c, nil
}

// firstLook lets streams know what they may choose from before the first is
// attached. All relays of the public network may take longer to read than tor
// is given to answer; followBook reads them then.
func (s *Service) firstLook(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin/2)
	defer cancel()
	if c, err := torctl.Dial(ctx, s.paths.socket()); err == nil {
		_ = s.book.refresh(ctx, c)
		_ = c.Close()
	}
}

func (s *Service) rules() streams.Rules {
	return streams.Rules{
		Device: s.owners.device,
		Refuse: func(device netip.Addr) bool {
			canary := s.canary.Load()
			return canary != nil && slices.Contains(*canary, device)
		},
		AnyChoice: func() bool { return len(s.settings.Load().Exits) > 0 },
		Choice: func(ctx context.Context, device netip.Addr) (streams.Choice, bool, error) {
			owner, err := s.owners.of(ctx, device)
			if err != nil {
				return streams.Choice{}, false, err
			}
			c, ok := s.settings.Load().choiceFor(string(owner.User))
			return c, ok, nil
		},
		PerDestination: func() bool { return s.settings.Load().Isolation == byDestination },
		Virtual:        func(a netip.Addr) bool { return s.cfg.VirtualIPv4.Contains(a) || s.cfg.VirtualIPv6.Contains(a) },
		Path:           s.book.path,
	}
}

// followBook keeps the list of relays true by a connection of its own, since
// its commands are long and others would wait.
func (s *Service) followBook(ctx context.Context) {
	for ctx.Err() == nil {
		if c, err := torctl.Dial(ctx, s.paths.socket()); err == nil {
			s.book.follow(ctx, c)
			_ = c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// followClock hears what relays say about this host's clock.
func (s *Service) followClock(ctx context.Context, c *torctl.Client) {
	feed, err := c.Events(ctx, "STATUS_GENERAL")
	if err != nil {
		return
	}
	for e := range feed {
		if skew, ok := e.ClockSkew(); ok {
			s.observe(func(o *observation) { o.skew = skew })
		}
	}
}
