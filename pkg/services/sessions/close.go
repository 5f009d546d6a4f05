package sessions

import (
	"context"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// removeWait bounds how long a close waits for lanes. It is shorter than what
// callers wait, so that they hear what is pending instead of nothing.
const removeWait = 10 * time.Second

// CloseDevice closes a device's session and returns after its peer is gone.
// With forget its addresses are released too. It gives the closed session, or
// nil when none was open.
func (m *Manager) CloseDevice(ctx context.Context, device id.Device, reason api.Reason, forget bool) (*api.Session, error) {
	return m.closeDevice(ctx, device, "", reason, forget)
}

// closeDevice is CloseDevice for one session only, if it is given: the device
// may have opened another meanwhile.
func (m *Manager) closeDevice(ctx context.Context, device id.Device, only id.Session, reason api.Reason, forget bool) (closed *api.Session, err error) {
	unlock, err := m.devices.lock(ctx, string(device))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s := m.open(device); s != nil && (only == "" || s.ID == only) {
		done, err := m.close(ctx, reason, s)
		if err != nil {
			return nil, err
		}
		closed = &done[0]
	}
	if err := m.finishEarlier(ctx, func(l leftover) bool { return l.device == device }); err != nil {
		return nil, err
	}
	if forget {
		if err := m.sib.Release(ctx, device); err != nil {
			return nil, err
		}
		if err := m.db.forgetKeys(ctx, "", device); err != nil {
			return nil, err
		}
	}
	return closed, nil
}

// CloseUser closes all sessions of a user and returns after their peers are
// gone. With forget the addresses of all the user's devices are released.
func (m *Manager) CloseUser(ctx context.Context, user id.User, reason api.Reason, forget bool) (int, error) {
	unlock, err := m.users.lock(ctx, string(user)) // keeps out whoever wants to open one
	if err != nil {
		return 0, err
	}
	defer unlock()
	for _, s := range m.openOf(user) {
		unlock, err := m.devices.lock(ctx, string(s.Device))
		if err != nil {
			return 0, err
		}
		defer unlock()
	}
	open := m.openOf(user)
	if len(open) > 0 {
		if _, err := m.close(ctx, reason, open...); err != nil {
			return 0, err
		}
	}
	if err := m.finishEarlier(ctx, func(l leftover) bool { return l.user == user }); err != nil {
		return 0, err
	}
	if forget {
		leases, err := m.sib.Leases(ctx, user)
		if err != nil {
			return 0, err
		}
		for _, l := range leases {
			if err := m.sib.Release(ctx, l.Device); err != nil {
				return 0, err
			}
		}
		if err := m.db.forgetKeys(ctx, user, ""); err != nil {
			return 0, err
		}
	}
	return len(open), nil
}

func (m *Manager) openOf(user id.User) (open []*session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.byID {
		if s.User == user {
			open = append(open, s)
		}
	}
	return open
}

// close ends open sessions: durably first, then at the interfaces, then their
// last counters. The caller holds the devices' locks.
func (m *Manager) close(ctx context.Context, reason api.Reason, open ...*session) ([]api.Session, error) {
	at := m.stamp()
	if err := m.db.close(ctx, reason, at, open...); err != nil {
		return nil, err
	}
	m.mu.Lock()
	for _, s := range open {
		m.retire(s, reason, at)
	}
	m.mu.Unlock()
	err := m.removePeers(ctx, open...)
	for _, s := range open {
		m.tell(ctx, "session.closed", s, reason)
	}
	if err != nil {
		return nil, pending(err)
	}
	closed := make([]api.Session, len(open))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range open {
		closed[i] = s.Session
	}
	return closed, nil
}

func pending(err error) error {
	return fault.Wrap(err, fault.Unavailable, "what was open is closed, but lanes could not remove the peers yet; it is being retried").
		WithReason("peer_pending").WithHint("'vpnctl status' shows what is wrong with the lanes").WithRetryAfter(time.Second)
}

// retire takes a session that is closed durably out of memory. Its peer is
// still to be removed. The caller holds mu.
func (m *Manager) retire(s *session, reason api.Reason, at time.Time) {
	m.drop(s)
	m.closing[s.PublicKey] = leftover{s.User, s.Device}
	s.State, s.Reason, s.Since, s.ClosedAt = api.Closed, reason, at, &at
}

// removePeers takes the peers of retired sessions off the interfaces and
// records their last counters.
func (m *Manager) removePeers(ctx context.Context, retired ...*session) error {
	left := make(map[string]leftover, len(retired))
	for _, s := range retired {
		left[s.PublicKey] = leftover{s.User, s.Device}
	}
	last, err := m.remove(ctx, left)
	if err != nil {
		return err
	}
	final := make([]*session, len(retired))
	m.mu.Lock()
	for i, s := range retired {
		if p, ok := last[s.Device]; ok && !s.confirmed.IsZero() {
			m.observe(s, p)
		}
		c := *s
		final[i] = &c
	}
	m.mu.Unlock()
	if err := m.db.final(context.WithoutCancel(ctx), final); err != nil {
		m.log.Warn("session.counters_lost", "sessions", len(retired), "err", err)
	}
	return nil
}

// remove takes peers off the interfaces and gives their last counters, where
// lanes still knew them. What cannot be removed is left to the reconciler.
func (m *Manager) remove(ctx context.Context, left map[string]leftover) (map[id.Device]lanes.PeerStats, error) {
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	open, err := m.gate.share(ctx)
	if err != nil {
		return nil, err
	}
	defer open()
	removals := make([]lanes.Removal, 0, len(left))
	for key, l := range left {
		removals = append(removals, lanes.Removal{Device: l.device, PublicKey: key})
	}
	removed, err := m.sib.Remove(ctx, removals...)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	for key := range left {
		delete(m.closing, key)
	}
	m.mu.Unlock()
	last := make(map[id.Device]lanes.PeerStats, len(removed.Last))
	for _, p := range removed.Last {
		last[p.Device] = p
	}
	return last, nil
}

// finishEarlier makes sure that nothing remains of closes that failed half way,
// in this process or in the one before.
func (m *Manager) finishEarlier(ctx context.Context, mine func(leftover) bool) error {
	select {
	case <-m.first:
	default:
		// What the process before left is known only to lanes, and gone after
		// the first Sync.
		ctx, cancel := context.WithTimeout(ctx, removeWait)
		defer cancel()
		select {
		case <-m.first:
		case <-ctx.Done():
			return pending(ctx.Err())
		}
	}
	left := m.leftovers(mine)
	if len(left) == 0 {
		return nil
	}
	if _, err := m.remove(ctx, left); err != nil {
		return pending(err)
	}
	return nil
}

// leftovers picks peers of closed sessions. A key that is open again is none.
// The caller holds the locks that keep the devices concerned from opening.
func (m *Manager) leftovers(mine func(leftover) bool) map[string]leftover {
	left := map[string]leftover{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, l := range m.closing {
		switch {
		case !mine(l):
		case m.byKey[key] != nil:
			delete(m.closing, key)
		default:
			left[key] = l
		}
	}
	return left
}
