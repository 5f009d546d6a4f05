package sessions

import (
	"context"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// CloseDevice closes a device's session and returns after its peer is gone.
// With forget its addresses are released too. It gives the closed session, or
// nil when there was none.
func (m *Manager) CloseDevice(ctx context.Context, device id.Device, reason api.Reason, forget bool) (*api.Session, error) {
	defer m.devices.lock(string(device))()
	s := m.open(device)
	if s == nil {
		if err := m.removeLeftover(ctx, device); err != nil {
			return nil, err
		}
		if forget {
			return nil, m.sib.Release(ctx, device)
		}
		return nil, nil
	}
	closed, err := m.close(ctx, s, reason)
	if err == nil && forget {
		err = m.sib.Release(ctx, device)
	}
	return closed, err
}

// CloseUser closes all sessions of a user and returns after their peers are
// gone. With forget the addresses of all the user's devices are released.
func (m *Manager) CloseUser(ctx context.Context, user id.User, reason api.Reason, forget bool) (int, error) {
	defer m.users.lock(string(user))()
	var devices []id.Device
	m.mu.Lock()
	for _, s := range m.byID {
		if s.User == user {
			devices = append(devices, s.Device)
		}
	}
	m.mu.Unlock()
	for _, d := range devices {
		if _, err := m.CloseDevice(ctx, d, reason, forget); err != nil {
			return 0, err
		}
	}
	if forget {
		leases, err := m.sib.LeasesOf(ctx, user)
		if err != nil {
			return 0, err
		}
		for _, l := range leases {
			if _, err := m.CloseDevice(ctx, l.Device, reason, true); err != nil {
				return 0, err
			}
		}
	}
	return len(devices), nil
}

// close ends an open session: durably first, then at the interfaces, then its
// last counters. The caller holds the device's lock.
func (m *Manager) close(ctx context.Context, s *session, reason api.Reason) (*api.Session, error) {
	now := m.now().UTC().Truncate(time.Microsecond)
	if err := m.db.close(ctx, s.ID, reason, now); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.drop(s)
	m.closing[s.PublicKey] = s.Device
	s.State, s.Reason, s.Since, s.ClosedAt = api.Closed, reason, now, &now
	m.count(s, 0, 0, 1)
	m.mu.Unlock()
	m.tell("session.closed", s, reason)

	last, err := m.removePeer(ctx, s.Device, s.PublicKey)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable,
			"the session of %s/%s is closed, but its peer could not be removed yet; it is being retried", s.Username, s.DeviceName).
			WithReason("peer_pending").WithHint("'vpnctl status' shows what is wrong with the lanes").WithRetryAfter(time.Second)
	}
	m.mu.Lock()
	if last != nil {
		m.observe(s, *last)
	}
	out := s.Session
	m.mu.Unlock()
	if err := m.db.checkpoint(ctx, []*session{s}, m.takeUsage()); err != nil {
		m.log.Warn("last_counters_not_recorded", "session", s.ID, "err", err)
	}
	return &out, nil
}

// removeLeftover makes sure that nothing of an earlier, failed close remains.
// The caller holds the device's lock.
func (m *Manager) removeLeftover(ctx context.Context, device id.Device) error {
	var left []string
	m.mu.Lock()
	for key, d := range m.closing {
		if d == device {
			left = append(left, key)
		}
	}
	m.mu.Unlock()
	for _, key := range left {
		if _, err := m.removePeer(ctx, device, key); err != nil {
			return err
		}
	}
	return nil
}

// removePeer takes a device's peer off the interfaces and gives its last
// counters, where lanes still knew them.
func (m *Manager) removePeer(ctx context.Context, device id.Device, key string) (*lanes.PeerStats, error) {
	m.gate.RLock()
	defer m.gate.RUnlock()
	removed, err := m.sib.Remove(ctx, lanes.Removal{Device: device, PublicKey: key})
	if err != nil {
		m.look()
		return nil, err
	}
	m.mu.Lock()
	delete(m.closing, key)
	m.mu.Unlock()
	for i := range removed.Last {
		if removed.Last[i].Device == device {
			return &removed.Last[i], nil
		}
	}
	return nil, nil
}
