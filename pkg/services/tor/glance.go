package tor

import (
	"context"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/services/tor/streams"
)

const (
	glanceFor = 3 * time.Millisecond // for what is shown besides
	lookFor   = 3 * time.Second      // for what was asked for
)

// glance asks who attaches streams, which waits while tor is asked something,
// for as long as tor hangs. It gives up after the patience; false says so, or
// that there is no connection. At most one question is left waiting.
func glance[T any](ctx context.Context, s *Service, patience time.Duration, ask func(*streams.Attacher) T) (answer T, ok bool) {
	a := s.attached()
	if a == nil {
		return answer, false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case s.glances <- struct{}{}:
	case <-ctx.Done():
		return answer, false
	}
	got := make(chan T, 1)
	go func() {
		defer func() { <-s.glances }()
		got <- ask(a)
	}()
	select {
	case answer = <-got:
		return answer, true
	case <-ctx.Done():
		return answer, false
	}
}

// attached is who attaches streams now; nil without a connection.
func (s *Service) attached() *streams.Attacher {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attacher
}

// uses tells whose the circuits are.
func (s *Service) uses(ctx context.Context) (map[string]streams.Use, error) {
	u, ok := glance(ctx, s, lookFor, (*streams.Attacher).Uses)
	if !ok {
		return nil, s.unreached()
	}
	return u, nil
}

// unreached says why tor cannot be asked, as status does.
func (s *Service) unreached() error {
	s.mu.Lock()
	reason, hint := s.obs.absent(s.wish)
	s.mu.Unlock()
	return fault.New(fault.Unavailable, "%s", first(reason, "tor does not answer")).WithHint("%s", first(hint, "vpnctl tor status"))
}
