package sessions

import (
	"context"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
)

// Beat notes a heartbeat. Of an open session it touches memory only; the next
// checkpoint writes it down.
func (m *Manager) Beat(ctx context.Context, b api.BeatItem) api.BeatResult {
	s := m.open(b.Device)
	if s == nil || s.User != b.User {
		return api.BeatResult{Refused: "session_closed", Why: m.whyClosed(ctx, b.User, b.Device)}
	}
	return api.BeatResult{State: api.Online, Recovered: m.heard(ctx, s, b.Remote)}
}

// heard notes a sign of life and tells whether the session was offline.
func (m *Manager) heard(ctx context.Context, s *session, remote string) (recovered bool) {
	now := m.stamp()
	m.mu.Lock()
	if s.State != api.Closed { // it may have been closed since the caller found it
		s.LastHeartbeat, s.dirty = &now, true
		if remote != "" {
			s.Remote = remote
		}
		recovered = m.recover(s, now)
	}
	m.mu.Unlock()
	if recovered {
		m.tell(ctx, "session.recovered", s, api.Recovered)
	}
	return recovered
}

// recover brings an offline session back. The caller holds mu.
func (m *Manager) recover(s *session, now time.Time) bool {
	if s.State != api.Offline {
		return false
	}
	s.State, s.Reason, s.Since, s.dirty = api.Online, api.Recovered, now, true
	return true
}

// isFresh tells whether a session was heard from lately. The caller holds mu.
func (m *Manager) isFresh(s *session, now time.Time) bool {
	if s.LastHeartbeat != nil && now.Sub(*s.LastHeartbeat) < m.cfg.HeartbeatTTL {
		return true
	}
	return s.shookHands(now)
}

// shookHands tells whether a handshake proves that the device is there. The
// caller holds mu.
func (s *session) shookHands(now time.Time) bool {
	return s.LastHandshake != nil && now.Sub(*s.LastHandshake) < handshakeFresh
}

// whyClosed looks up why the device's latest session ended; "" when that is
// not known, or does not count any more.
func (m *Manager) whyClosed(ctx context.Context, user id.User, device id.Device) api.Reason {
	r, err := m.db.lastReason(ctx, user, device)
	if err != nil {
		m.log.Warn("session.close_reason_unknown", "device_id", device, "err", err)
		return ""
	}
	if r == api.UserSuspended {
		if a, err := m.sib.Account(ctx, user); err == nil && a.Status == users.Active {
			return "" // active again
		}
	}
	return r
}

// sweep marks silent sessions offline and gives those past their hard TTL.
func (m *Manager) sweep(ctx context.Context) (expired []*session) {
	now := m.stamp()
	var silent []*session
	m.mu.Lock()
	for _, s := range m.byID {
		switch {
		case !now.Before(s.ExpiresAt):
			expired = append(expired, s)
		case s.State == api.Online && !m.isFresh(s, now):
			s.State, s.Reason, s.Since, s.dirty = api.Offline, api.Silent, now, true
			silent = append(silent, s)
		}
	}
	m.mu.Unlock()
	for _, s := range silent {
		m.tell(ctx, "session.offline", s, api.Silent)
	}
	return expired
}

// expire closes a session whose hard TTL is over.
func (m *Manager) expire(ctx context.Context, s *session) {
	if _, err := m.closeDevice(ctx, s.Device, s.ID, api.Expired, false); err != nil && ctx.Err() == nil {
		m.log.WarnContext(ctx, "session.not_closed", append(s.about(ctx), "err", err)...)
	}
}
