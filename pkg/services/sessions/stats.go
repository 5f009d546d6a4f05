package sessions

import (
	"context"
	"errors"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// readStats takes over counters and handshakes.
func (m *Manager) readStats(ctx context.Context) {
	asked := m.now()
	st, err := m.sib.Stats(ctx)
	if err != nil {
		return // agree tells
	}
	now := m.stamp()
	var recovered []*session
	var moved []move
	m.mu.Lock()
	m.suspect(asked, st.Peers)
	for _, p := range st.Peers {
		s := m.byDevice[p.Device]
		// Before lanes had confirmed the session's peer, the numbers may be
		// those of the device's session before.
		if s == nil || s.confirmed.IsZero() || !asked.After(s.confirmed) {
			continue
		}
		before := s.Lane
		m.observe(s, p)
		if s.Lane != before {
			moved = append(moved, move{s, s.Lane})
		}
		if s.shookHands(now) && m.recover(s, now) {
			recovered = append(recovered, s)
		}
	}
	m.mu.Unlock()
	for _, s := range recovered {
		m.tell(ctx, "session.recovered", s, api.Recovered)
	}
	for _, to := range moved {
		m.log.InfoContext(ctx, "session.lane_changed", append(to.session.about(ctx), "lane", to.lane)...)
	}
}

// move is a device that took the other lane, or its first.
type move struct {
	session *session
	lane    string
}

// suspect compares whom lanes has with whom it should have. What differs in two
// readings is no change under way, and lanes is told everything again: a call
// of the process before may have come after our Sync. The caller holds mu.
func (m *Manager) suspect(asked time.Time, peers []lanes.PeerStats) {
	differs := map[id.Device]bool{}
	has := make(map[id.Device]bool, len(peers))
	for _, p := range peers {
		has[p.Device] = true
		if m.byDevice[p.Device] == nil {
			differs[p.Device] = true
		}
	}
	for _, s := range m.byID {
		if !has[s.Device] && !s.confirmed.IsZero() && asked.After(s.confirmed) {
			differs[s.Device] = true
		}
	}
	for device := range differs {
		if m.suspects[device] {
			m.log.Warn("lanes.differ", "device_id", device, "has_peer", has[device])
			m.resync = true
			differs = nil // after the Sync it begins anew
			break
		}
	}
	m.suspects = differs
}

// observe takes over what lanes said of one peer. The caller holds mu.
func (m *Manager) observe(s *session, p lanes.PeerStats) {
	vrx, vtx := s.vpn.advance(p.VPN)
	trx, ttx := s.tor.advance(p.Tor)
	if vrx+vtx+trx+ttx != 0 {
		s.VPNRxBytes, s.VPNTxBytes = s.VPNRxBytes+vrx, s.VPNTxBytes+vtx
		s.TorRxBytes, s.TorTxBytes = s.TorRxBytes+trx, s.TorTxBytes+ttx
		s.RxBytes, s.TxBytes = s.RxBytes+vrx+trx, s.TxBytes+vtx+ttx
		s.dirty = true
	}
	if p.LastHandshake != nil && (s.LastHandshake == nil || p.LastHandshake.After(*s.LastHandshake)) {
		t := p.LastHandshake.UTC()
		s.LastHandshake, s.Lane, s.dirty = &t, string(p.HandshakeLane), true
	}
	if p.Endpoint != "" && p.Endpoint != s.Endpoint {
		s.Endpoint, s.dirty = p.Endpoint, true
	}
}

// checkpointChunk is how many sessions one transaction writes: about 3 ms, so
// that whoever wants to connect meanwhile does not notice.
const checkpointChunk = 200

// checkpoint writes down what changed in memory since the last one. Only one
// may run at a time.
func (m *Manager) checkpoint(ctx context.Context) {
	var changed []*session
	m.mu.Lock()
	for _, s := range m.byID {
		if s.dirty {
			changed = append(changed, s)
		}
	}
	m.mu.Unlock()
	for len(changed) > 0 {
		n := min(checkpointChunk, len(changed))
		if err := m.writeDown(ctx, changed[:n]); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("checkpoint.failed", "err", err)
			}
			return
		}
		changed = changed[n:]
	}
}

func (m *Manager) writeDown(ctx context.Context, changed []*session) error {
	copies := make([]*session, len(changed))
	m.mu.Lock()
	for i, s := range changed {
		c := *s
		copies[i], s.dirty = &c, false
	}
	m.mu.Unlock()
	err := m.db.checkpoint(ctx, copies)
	if err != nil {
		m.mu.Lock()
		for _, s := range changed {
			s.dirty = true
		}
		m.mu.Unlock()
	}
	return err
}

// report sends traffic totals to users: numbered, so that one sent twice
// counts once.
func (m *Manager) report(ctx context.Context) {
	seq, usage, err := m.db.nextReport(ctx)
	if err == nil && seq > 0 {
		if err = m.sib.AddUsage(ctx, seq, usage); err == nil {
			err = m.db.reported(ctx, seq)
		}
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, fault.Canceled) {
		m.log.Warn("usage.not_reported", "seq", seq, "err", err)
	}
}
