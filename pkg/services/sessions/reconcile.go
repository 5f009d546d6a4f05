package sessions

import (
	"context"
	"errors"
	"maps"
	"time"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

// How often the reconciler does what. Reading counters costs time in
// proportion to the peers, so it also waits a multiple of what it took.
const (
	lookEvery       = 500 * time.Millisecond
	sweepEvery      = time.Second
	statsEvery      = 2 * time.Second
	statsShare      = 20
	checkpointEvery = 2 * time.Second
	reportEvery     = 10 * time.Second
	forgetEvery     = time.Hour
)

// look wakes the reconciler.
func (m *Manager) look() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run keeps interfaces, states, counters and totals in agreement until ctx
// ends, then writes down what is not on disk yet.
func (m *Manager) Run(ctx context.Context) error {
	next := map[string]time.Time{}
	due := func(name string, every time.Duration) bool {
		now := time.Now()
		if now.Before(next[name]) {
			return false
		}
		next[name] = now.Add(every)
		return true
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		m.agree(ctx)
		if due("sweep", sweepEvery) {
			for _, s := range m.sweep() {
				m.expire(ctx, s)
			}
		}
		if due("stats", statsEvery) {
			start := time.Now()
			m.readStats(ctx)
			next["stats"] = time.Now().Add(max(statsEvery, statsShare*time.Since(start)))
		}
		if due("checkpoint", checkpointEvery) {
			m.checkpoint(ctx)
		}
		if due("report", reportEvery) {
			m.report(ctx)
		}
		if due("forget", forgetEvery) && m.cfg.History > 0 {
			if err := m.db.forget(ctx, m.now().Add(-m.cfg.History)); err != nil {
				m.log.Warn("history_sweep_failed", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			m.checkpoint(last)
			return nil
		case <-tick.C:
		case <-m.wake:
		}
	}
}

// agree sees to it that lanes holds exactly the peers of the open sessions.
func (m *Manager) agree(ctx context.Context) {
	now, err := m.sib.Epoch(ctx)
	if err != nil {
		m.disagree(ctx, "ask lanes", err)
		return
	}
	if now.Synced && now.Epoch == m.epoch.Load() {
		m.finishClosing(ctx)
		return
	}
	m.synced.Store(false)
	m.gate.Lock()
	defer m.gate.Unlock()
	m.mu.Lock()
	open := make([]*session, 0, len(m.byID))
	for _, s := range m.byID {
		open = append(open, s)
	}
	m.mu.Unlock()
	peers := make([]lanes.Peer, len(open))
	for i, s := range open {
		peers[i] = s.peer()
	}
	done, err := m.sib.Sync(ctx, peers)
	if err != nil {
		m.disagree(ctx, "sync lanes", err)
		return
	}
	m.mu.Lock()
	for _, s := range open {
		s.epoch = done.Epoch
	}
	clear(m.closing)
	m.mu.Unlock()
	m.epoch.Store(done.Epoch)
	m.synced.Store(true)
	m.log.Info("lanes_synced", "peers", len(peers), "added", done.Added, "changed", done.Changed, "removed", done.Removed)
}

func (m *Manager) disagree(ctx context.Context, doing string, err error) {
	if ctx.Err() != nil {
		return
	}
	if m.synced.Swap(false) {
		m.log.Warn("lanes_unreachable", "doing", doing, "err", err)
	}
}

// finishClosing retries the removal of peers whose sessions are closed.
func (m *Manager) finishClosing(ctx context.Context) {
	m.mu.Lock()
	left := maps.Clone(m.closing)
	m.mu.Unlock()
	for key, device := range left {
		unlock := m.devices.lock(string(device))
		m.mu.Lock()
		reopened := m.byKey[key] != nil // the same key again: the peer is wanted
		if reopened {
			delete(m.closing, key)
		}
		m.mu.Unlock()
		if !reopened {
			if err := m.removeLeftover(ctx, device); err != nil {
				m.disagree(ctx, "remove peer", err)
			}
		}
		unlock()
	}
}

func (m *Manager) expire(ctx context.Context, s *session) {
	defer m.devices.lock(string(s.Device))()
	if m.open(s.Device) != s {
		return
	}
	if _, err := m.close(ctx, s, api.Expired); err != nil {
		m.log.Warn("expired_session_not_closed", "session", s.ID, "err", err)
	}
}

// readStats takes over counters and handshakes.
func (m *Manager) readStats(ctx context.Context) {
	asked := m.now()
	st, err := m.sib.Stats(ctx)
	if err != nil {
		return // agree has told already
	}
	now := m.now().UTC()
	var recovered []*session
	m.mu.Lock()
	for _, p := range st.Peers {
		s := m.byDevice[p.Device]
		if s == nil || s.OpenedAt.After(asked) {
			continue // the numbers may be those of the device's session before
		}
		m.observe(s, p)
		if s.LastHandshake != nil && now.Sub(*s.LastHandshake) < handshakeFresh && m.recover(s, now) {
			recovered = append(recovered, s)
		}
	}
	m.mu.Unlock()
	for _, s := range recovered {
		m.tell("session.recovered", s, api.Recovered)
	}
}

// observe takes over what lanes said of one peer. The caller holds mu.
func (m *Manager) observe(s *session, p lanes.PeerStats) {
	vrx, vtx := s.vpn.advance(p.VPN)
	trx, ttx := s.tor.advance(p.Tor)
	if rx, tx := vrx+trx, vtx+ttx; rx != 0 || tx != 0 {
		s.VPNRxBytes, s.VPNTxBytes = s.VPNRxBytes+vrx, s.VPNTxBytes+vtx
		s.TorRxBytes, s.TorTxBytes = s.TorRxBytes+trx, s.TorTxBytes+ttx
		s.RxBytes, s.TxBytes = s.RxBytes+rx, s.TxBytes+tx
		m.count(s, rx, tx, 0)
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

// count adds to what will be reported to users. The caller holds mu.
func (m *Manager) count(s *session, rx, tx, ended int64) {
	u := m.usage[s.User]
	if u == nil {
		u = &users.Usage{User: s.User}
		m.usage[s.User] = u
	}
	u.RxBytes, u.TxBytes, u.Sessions, u.SeenAt = u.RxBytes+rx, u.TxBytes+tx, u.Sessions+ended, m.now().UTC()
}

func (m *Manager) takeUsage() []users.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]users.Usage, 0, len(m.usage))
	for _, u := range m.usage {
		out = append(out, *u)
	}
	clear(m.usage)
	return out
}

func (m *Manager) putBack(usage []users.Usage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range usage {
		if have := m.usage[u.User]; have != nil {
			u.RxBytes, u.TxBytes, u.Sessions = u.RxBytes+have.RxBytes, u.TxBytes+have.TxBytes, u.Sessions+have.Sessions
		}
		m.usage[u.User] = &u
	}
}

// checkpoint writes down what changed in memory since the last one.
func (m *Manager) checkpoint(ctx context.Context) {
	usage := m.takeUsage()
	m.mu.Lock()
	var changed []*session
	for _, s := range m.byID {
		if s.dirty {
			s.dirty = false
			c := *s
			changed = append(changed, &c)
		}
	}
	m.mu.Unlock()
	if len(changed) == 0 && len(usage) == 0 {
		return
	}
	if err := m.db.checkpoint(ctx, changed, usage); err != nil {
		m.putBack(usage)
		m.mu.Lock()
		for _, c := range changed {
			if s := m.byID[c.ID]; s != nil {
				s.dirty = true
			}
		}
		m.mu.Unlock()
		m.log.Warn("checkpoint_failed", "err", err)
	}
}

// report sends traffic totals to users: numbered, so that one sent twice
// counts once.
func (m *Manager) report(ctx context.Context) {
	seq, usage, err := m.db.nextReport(ctx)
	if err != nil || seq == 0 {
		if err != nil {
			m.log.Warn("usage_report_failed", "err", err)
		}
		return
	}
	if err := m.sib.AddUsage(ctx, seq, usage); err != nil {
		if !errors.Is(err, fault.Canceled) {
			m.log.Warn("usage_report_failed", "seq", seq, "err", err)
		}
		return
	}
	if err := m.db.reported(ctx, seq); err != nil {
		m.log.Warn("usage_report_failed", "seq", seq, "err", err)
	}
}
