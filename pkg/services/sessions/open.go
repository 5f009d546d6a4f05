package sessions

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/store"
	"vpnd/pkg/wgdev"
)

// Request asks for a device's session.
type Request struct {
	User      id.User
	Device    id.Device
	PublicKey string
	Remote    string
}

// Open opens a device's session, or gives the open one when the key is the
// same. It returns after both interfaces have the peer.
func (m *Manager) Open(ctx context.Context, r Request) (*client.Initiated, error) {
	key, err := wgdev.ParsePublicKey(r.PublicKey)
	if err != nil {
		return nil, fault.InvalidField("body.public_key", "%v", err).WithReason("public_key")
	}
	r.PublicKey = key.String()

	// The user lock makes suspension final: users commits it before it closes
	// the sessions, and closing waits for whoever has asked about the account
	// before that.
	unlockUser, err := m.users.share(ctx, string(r.User))
	if err != nil {
		return nil, err
	}
	defer unlockUser()
	unlockDevice, err := m.devices.lock(ctx, string(r.Device))
	if err != nil {
		return nil, err
	}
	defer unlockDevice()

	var account *users.Account
	var device *auth.Device
	err = together(
		func() (err error) { account, err = m.account(ctx, r.User); return err },
		func() (err error) { device, err = m.sib.Device(ctx, r.User, r.Device); return err },
	)
	if err != nil {
		return nil, err
	}
	server, err := m.serverKeys(ctx, m.lanesEpoch())
	if err != nil {
		return nil, err
	}
	if err := m.judgeKey(r, server); err != nil {
		return nil, err
	}
	s, epoch, err := m.establish(ctx, r, account, device)
	if err != nil {
		return nil, err
	}
	if epoch != server.epoch { // lanes is a new process, perhaps with a new key
		if server, err = m.serverKeys(ctx, epoch); err != nil {
			return nil, err
		}
	}
	return m.reply(s, server), nil
}

// establish gives the session that r asks for, with its peer in both lanes, and
// the epoch in which lanes confirmed it. The caller holds the device's lock.
func (m *Manager) establish(ctx context.Context, r Request, account *users.Account, device *auth.Device) (*session, string, error) {
	old := m.open(r.Device)
	if old != nil && !m.now().Before(old.ExpiresAt) {
		if _, err := m.close(ctx, api.Expired, old); err != nil {
			return nil, "", err
		}
		old = nil
	}
	if old != nil && old.PublicKey == r.PublicKey {
		epoch, err := m.again(ctx, old, r)
		return old, epoch, err
	}
	s, err := m.record(ctx, r, account, device, old)
	if err != nil {
		return nil, "", err
	}
	if old != nil {
		err = m.removePeers(ctx, old)
	}
	var epoch string
	if err == nil {
		epoch, err = m.put(ctx, s)
	}
	if err != nil {
		m.undo(ctx, s)
		return nil, "", err
	}
	m.tell(ctx, "session.opened", s, api.Connected)
	return s, epoch, nil
}

// account refuses everybody who may not connect.
func (m *Manager) account(ctx context.Context, user id.User) (*users.Account, error) {
	a, err := m.sib.Account(ctx, user)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil, fault.New(fault.Unauthenticated, "the account does not exist").WithReason("unknown_user")
	case err != nil:
		return nil, err
	case a.Status == users.Suspended:
		return nil, fault.New(fault.Denied, "the account is suspended").WithReason("suspended")
	case a.Status != users.Active:
		return nil, fault.New(fault.Unauthenticated, "the account does not exist").WithReason("unknown_user")
	}
	return a, nil
}

// judgeKey refuses keys that cannot be this device's own. A key that another
// device has used last, open session or not, is found by the database.
func (m *Manager) judgeKey(r Request, server serverKeys) error {
	for _, k := range server.keys {
		if k == r.PublicKey {
			return fault.InvalidField("body.public_key", "is the server's own key").WithReason("public_key").
				WithHint("make a new key pair on this device")
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.byKey[r.PublicKey]; s != nil && s.Device != r.Device {
		return keyInUse(nil)
	}
	if l, ok := m.closing[r.PublicKey]; ok && l.device != r.Device {
		return keyInUse(nil)
	}
	return nil
}

func keyInUse(cause error) error {
	const what = "belongs to another device"
	return fault.Wrap(cause, fault.Conflict, "body.public_key: %s", what).WithReason("public_key_in_use").
		WithFields(fault.Field{Path: "body.public_key", Message: what}).WithHint("make a new key pair on this device")
}

// again answers for a session that is open already.
func (m *Manager) again(ctx context.Context, s *session, r Request) (epoch string, err error) {
	m.mu.Lock()
	epoch = s.epoch
	current := m.synced && epoch == m.epoch
	m.mu.Unlock()
	if !current {
		if epoch, err = m.put(ctx, s); err != nil {
			return "", err
		}
	}
	m.heard(ctx, s, r.Remote)
	return epoch, nil
}

// record leases addresses and makes the session durable, in place of the
// device's old one if there is one.
func (m *Manager) record(ctx context.Context, r Request, account *users.Account, device *auth.Device, old *session) (*session, error) {
	lease, err := m.sib.Acquire(ctx, r.Device, r.User)
	if err != nil {
		return nil, err
	}
	psk, err := wgdev.GeneratePresharedKey()
	if err != nil {
		return nil, err
	}
	s := m.fresh(r, account, device, lease, psk.Reveal())
	if err := m.db.insert(ctx, s, old); err != nil {
		if constraint, ok := store.IsUnique(err); ok && constraint == "keys.public_key" {
			return nil, keyInUse(err)
		}
		return nil, err
	}
	m.mu.Lock()
	if old != nil {
		m.retire(old, api.Replaced, s.OpenedAt)
	}
	m.add(s)
	m.mu.Unlock()
	if old != nil {
		m.tell(ctx, "session.closed", old, api.Replaced)
	}
	return s, nil
}

func (m *Manager) fresh(r Request, account *users.Account, device *auth.Device, lease *ipam.Lease, psk string) *session {
	now := m.stamp()
	return &session{
		presharedKey: psk,
		Session: api.Session{
			ID: id.NewSession(), User: r.User, Username: account.Username, Device: r.Device, DeviceName: device.Name,
			State: api.Online, Reason: api.Connected, Since: now, OpenedAt: now, ExpiresAt: now.Add(m.cfg.HardTTL),
			PublicKey: r.PublicKey, Remote: r.Remote, LastHeartbeat: &now,
			VPNIPv4: lease.VPN.IPv4, VPNIPv6: lease.VPN.IPv6, TorIPv4: lease.Tor.IPv4, TorIPv6: lease.Tor.IPv6,
		},
	}
}

// put tells lanes about a session's peer.
func (m *Manager) put(ctx context.Context, s *session) (epoch string, err error) {
	open, err := m.gate.share(ctx)
	if err != nil {
		return "", err
	}
	defer open()
	if epoch, err = m.sib.Put(ctx, s.peer()); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.confirm(s, epoch)
	delete(m.closing, s.PublicKey)
	if epoch != m.epoch {
		m.look()
	}
	return epoch, nil
}

// confirm notes that lanes has a session's peer. The caller holds mu.
func (m *Manager) confirm(s *session, epoch string) {
	s.epoch = epoch
	if s.confirmed.IsZero() {
		s.confirmed = m.now()
	}
}

func (s *session) peer() lanes.Peer {
	return lanes.Peer{
		Device: s.Device, PublicKey: s.PublicKey, PresharedKey: s.presharedKey,
		VPN: []netip.Addr{s.VPNIPv4, s.VPNIPv6}, Tor: []netip.Addr{s.TorIPv4, s.TorIPv6},
	}
}

// undo takes back a session whose peer could not be made. The interfaces may
// have it or not: the reconciler sees to it that they do not.
func (m *Manager) undo(ctx context.Context, s *session) {
	at := m.stamp()
	err := m.db.close(context.WithoutCancel(ctx), api.Failed, at, s)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		// It stays open, on disk and here alike. Lanes may lack its peer.
		m.log.ErrorContext(ctx, "session.not_undone", append(s.about(ctx), "err", err)...)
		m.resync = true
	} else {
		m.retire(s, api.Failed, at)
	}
	m.look()
}

// serverKeys are the interfaces' public keys in one epoch of lanes.
type serverKeys struct {
	epoch string
	keys  map[lanes.Name]string
}

// serverKeys gives the interfaces' public keys; lanes is asked once an epoch.
func (m *Manager) serverKeys(ctx context.Context, epoch string) (serverKeys, error) {
	m.mu.Lock()
	k := m.servers
	m.mu.Unlock()
	if k.epoch == epoch && epoch != "" {
		return k, nil
	}
	list, err := m.sib.Interfaces(ctx)
	if err != nil {
		return serverKeys{}, err
	}
	k = serverKeys{epoch: epoch, keys: map[lanes.Name]string{}}
	for _, l := range list {
		if l.PublicKey != "" {
			k.keys[l.Name] = l.PublicKey
		}
	}
	if len(k.keys) < 2 {
		return serverKeys{}, fault.New(fault.Unavailable, "the lanes are not up yet").WithReason("lanes").WithRetryAfter(time.Second)
	}
	m.mu.Lock()
	m.servers = k
	m.mu.Unlock()
	return k, nil
}

func (m *Manager) lanesEpoch() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// together runs both at once and gives the first one's error first.
func together(a, b func() error) error {
	done := make(chan error, 1)
	go func() { done <- b() }()
	errA := a()
	errB := <-done
	if errA != nil {
		return errA
	}
	return errB
}
