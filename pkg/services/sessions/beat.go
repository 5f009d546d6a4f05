package sessions

import (
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
)

// Beat notes a heartbeat. It touches memory only; the reconciler writes it
// down with the next checkpoint.
func (m *Manager) Beat(b api.BeatItem) api.BeatResult {
	m.mu.Lock()
	s := m.byDevice[b.Device]
	m.mu.Unlock()
	if s == nil || s.User != b.User {
		return api.BeatResult{Refused: "session_closed", Why: m.whyClosed(b.Device)}
	}
	return api.BeatResult{State: api.Online, Recovered: m.heard(s, b.Remote)}
}

// heard notes a sign of life and tells whether the session was offline.
func (m *Manager) heard(s *session, remote string) (recovered bool) {
	now := m.now().UTC()
	m.mu.Lock()
	s.LastHeartbeat = &now
	if remote != "" {
		s.Remote = remote
	}
	s.dirty = true
	recovered = m.recover(s, now)
	m.mu.Unlock()
	if recovered {
		m.tell("session.recovered", s, api.Recovered)
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
	return s.LastHandshake != nil && now.Sub(*s.LastHandshake) < handshakeFresh
}

// whyClosed looks up why the device's latest session ended.
func (m *Manager) whyClosed(device id.Device) api.Reason {
	r, err := m.db.lastReason(device)
	if err != nil {
		m.log.Warn("close_reason_unknown", "device", device, "err", err)
	}
	return r
}

// sweep marks silent sessions offline and gives those past their hard TTL.
func (m *Manager) sweep() (expired []*session) {
	now := m.now()
	var silent []*session
	m.mu.Lock()
	for _, s := range m.byID {
		switch {
		case !now.Before(s.ExpiresAt):
			expired = append(expired, s)
		case s.State == api.Online && !m.isFresh(s, now):
			s.State, s.Reason, s.Since, s.dirty = api.Offline, api.Silent, now.UTC(), true
			silent = append(silent, s)
		}
	}
	m.mu.Unlock()
	for _, s := range silent {
		m.tell("session.offline", s, api.Silent)
	}
	return expired
}
