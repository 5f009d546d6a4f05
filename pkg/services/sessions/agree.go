package sessions

import (
	"context"
	"maps"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
)

// look asks for a look at lanes now.
func (m *Manager) look() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// agree sees to it that lanes holds exactly the peers of the open sessions.
func (m *Manager) agree(ctx context.Context) {
	now, err := m.sib.Epoch(ctx)
	if err != nil {
		m.disagree(ctx, "ask lanes", err)
		return
	}
	m.mu.Lock()
	same := now.Synced && now.Epoch == m.epoch && !m.resync
	m.mu.Unlock()
	if same {
		err = m.finishClosing(ctx)
	} else {
		err = m.sync(ctx)
	}
	if err != nil {
		m.disagree(ctx, "bring lanes up to date", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced = true
}

// sync tells lanes everything.
func (m *Manager) sync(ctx context.Context) error {
	open, err := m.gate.close(ctx)
	if err != nil {
		return err
	}
	defer open()
	m.mu.Lock()
	m.synced, m.resync = false, false
	wanted := make([]*session, 0, len(m.byID))
	for _, s := range m.byID {
		wanted = append(wanted, s)
	}
	// What is closed from here on may be in the list, and stays in closing.
	gone := maps.Clone(m.closing)
	// A key that is opened again is in both, and this Sync makes its peer: should
	// that session be closed meanwhile, closing must not lose it.
	for _, s := range wanted {
		delete(gone, s.PublicKey)
	}
	m.mu.Unlock()
	peers := make([]lanes.Peer, len(wanted))
	for i, s := range wanted {
		peers[i] = s.peer()
	}
	done, err := m.sib.Sync(ctx, peers)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.resync = true
		return err
	}
	for _, s := range wanted {
		m.confirm(s, done.Epoch)
	}
	for key := range gone {
		delete(m.closing, key)
	}
	if m.epoch == "" {
		close(m.first)
	}
	m.epoch = done.Epoch
	m.log.Info("lanes.synced", "epoch", done.Epoch, "peers", len(peers), "added", done.Added, "changed", done.Changed, "removed", done.Removed)
	return nil
}

func (m *Manager) disagree(ctx context.Context, doing string, err error) {
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	news := m.synced
	m.synced = false
	m.mu.Unlock()
	if news {
		m.log.Warn("lanes.behind", "doing", doing, "err", err)
	}
}

// finishClosing retries the removal of peers whose sessions are closed.
func (m *Manager) finishClosing(ctx context.Context) error {
	m.mu.Lock()
	devices := make(map[id.Device]bool, len(m.closing))
	for _, l := range m.closing {
		devices[l.device] = true
	}
	m.mu.Unlock()
	for device := range devices {
		if err := m.finishDevice(ctx, device); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) finishDevice(ctx context.Context, device id.Device) error {
	unlock, err := m.devices.lock(ctx, string(device))
	if err != nil {
		return err
	}
	defer unlock()
	left := m.leftovers(func(l leftover) bool { return l.device == device })
	if len(left) == 0 {
		return nil
	}
	_, err = m.remove(ctx, left)
	return err
}

// checkLeases closes the sessions whose addresses are not leased to them any
// more: the prefixes were changed, or one of the databases came from a backup.
func (m *Manager) checkLeases(ctx context.Context) error {
	m.mu.Lock()
	open := make([]*session, 0, len(m.byID))
	for _, s := range m.byID {
		open = append(open, s)
	}
	m.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	all, err := m.sib.Leases(ctx, "")
	if err != nil {
		return err
	}
	leases := make(map[id.Device]ipam.Lease, len(all))
	for _, l := range all {
		leases[l.Device] = l
	}
	for _, s := range open {
		if l, ok := leases[s.Device]; ok && s.holds(l) {
			continue
		}
		m.log.WarnContext(ctx, "session.lease_lost", s.about(ctx)...)
		if _, err := m.closeDevice(ctx, s.Device, s.ID, api.LeaseReleased, false); err != nil {
			return err
		}
	}
	return nil
}

// holds tells whether a session's addresses are those of the lease.
func (s *session) holds(l ipam.Lease) bool {
	return l.Device == s.Device && l.User == s.User &&
		l.VPN == ipam.Addresses{IPv4: s.VPNIPv4, IPv6: s.VPNIPv6} && l.Tor == ipam.Addresses{IPv4: s.TorIPv4, IPv6: s.TorIPv6}
}
