package tor

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"vpnd/pkg/api/lanes"
)

// askLoop renews the lease every second, and asks at once on a change.
func (s *Service) askLoop(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		s.mu.Lock()
		told := s.silent
		wait := time.Now().Before(s.hold) && decide(s.wish, s.obs).state == lanes.TorMaintenance
		s.mu.Unlock()
		if !wait {
			if err := s.ask(ctx); err != nil && ctx.Err() == nil && !told {
				s.log.Warn("lanes.silent", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.askNow:
		}
	}
}

// ask tells lanes what is decided now.
func (s *Service) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.askMu.Lock()
	defer s.askMu.Unlock()
	s.mu.Lock()
	d := decide(s.wish, s.obs)
	s.mu.Unlock()
	a := &lanes.TorAsk{}
	a.Body.State, a.Body.Reason, a.Body.Lease = d.state, d.reason, int(lease/time.Second)
	answer, err := s.siblings.setTor(ctx, a)
	s.mu.Lock()
	s.silent = err != nil
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.canary.Store(&answer.Canary)
	gws := slices.Clone(answer.Gateways)
	slices.SortFunc(gws, netip.Addr.Compare)
	s.mu.Lock()
	was := s.status.Lane
	s.status.Lane, s.status.Since, s.answered, s.asked = string(answer.State), answer.Since, time.Now(), d
	moved := !slices.Equal(gws, s.gateways)
	s.gateways, s.obs.gateways = gws, len(gws) > 0
	s.mu.Unlock()
	if moved {
		wake(s.kick)
	}
	if was != string(answer.State) {
		s.log.Debug("lane.answered", "state", answer.State, "reason", d.reason) // lanes tells of it
	}
	return nil
}

// observe changes what is known, and asks at once if the decision changes.
func (s *Service) observe(change func(*observation)) {
	s.mu.Lock()
	process, bridges := s.obs.process, s.obs.bridges
	change(&s.obs)
	if s.obs.process != process || s.obs.bridges != bridges {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	differs := decide(s.wish, s.obs) != s.asked
	s.mu.Unlock()
	if differs {
		wake(s.askNow)
	}
}
