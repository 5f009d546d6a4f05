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
	defer m.users.share(string(r.User))()
	defer m.devices.lock(string(r.Device))()

	var account *users.Account
	var device *auth.Device
	err = together(
		func() (err error) { account, err = m.account(ctx, r.User); return err },
		func() (err error) { device, err = m.sib.Device(ctx, r.User, r.Device); return err },
	)
	if err != nil {
		return nil, err
	}
	server, err := m.serverKeys(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.judgeKey(r, server); err != nil {
		return nil, err
	}
	old := m.open(r.Device)
	if old != nil && old.PublicKey == r.PublicKey {
		return m.again(ctx, old, r, server)
	}
	s, err := m.record(ctx, r, account, device, old)
	if err != nil {
		return nil, err
	}
	if err := m.program(ctx, s); err != nil {
		m.undo(ctx, s)
		return nil, err
	}
	m.tell("session.opened", s, api.Connected)
	return m.reply(s, server), nil
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

// judgeKey refuses keys that cannot be this device's own.
func (m *Manager) judgeKey(r Request, server *serverKeys) error {
	for _, k := range server.keys {
		if k == r.PublicKey {
			return fault.InvalidField("body.public_key", "is the server's own key").WithReason("public_key")
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.byKey[r.PublicKey]; s != nil && s.Device != r.Device {
		return fault.New(fault.Conflict, "body.public_key: belongs to another device").WithReason("public_key_in_use").
			WithHint("make a new key pair on this device")
	}
	return nil
}

// again answers for a session that is open already.
func (m *Manager) again(ctx context.Context, s *session, r Request, server *serverKeys) (*client.Initiated, error) {
	m.mu.Lock()
	current := s.epoch != "" && s.epoch == m.epoch.Load()
	m.mu.Unlock()
	if !current {
		if err := m.program(ctx, s); err != nil {
			return nil, err
		}
	}
	m.heard(s, r.Remote)
	return m.reply(s, server), nil
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
		return nil, uniqueKey(err)
	}
	m.mu.Lock()
	if old != nil {
		m.drop(old)
		m.count(old, 0, 0, 1)
	}
	m.add(s)
	m.mu.Unlock()
	if old != nil {
		m.tell("session.closed", old, api.Replaced)
	}
	return s, nil
}

func (m *Manager) fresh(r Request, account *users.Account, device *auth.Device, lease *ipam.Lease, psk string) *session {
	now := m.now().UTC().Truncate(time.Microsecond)
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

// program tells lanes about a session's peer.
func (m *Manager) program(ctx context.Context, s *session) error {
	m.gate.RLock()
	defer m.gate.RUnlock()
	epoch, err := m.sib.Put(ctx, s.peer())
	if err != nil {
		return err
	}
	m.mu.Lock()
	s.epoch = epoch
	delete(m.closing, s.PublicKey)
	m.mu.Unlock()
	if epoch != m.epoch.Load() {
		m.look()
	}
	return nil
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
	ctx = context.WithoutCancel(ctx)
	m.mu.Lock()
	m.drop(s)
	m.closing[s.PublicKey] = s.Device
	m.mu.Unlock()
	if err := m.db.close(ctx, s.ID, api.Failed, m.now()); err != nil {
		m.log.Error("session_undo_not_recorded", "session", s.ID, "err", err)
	}
	m.look()
}

// serverKeys gives the interfaces' public keys; lanes is asked once an epoch.
func (m *Manager) serverKeys(ctx context.Context) (*serverKeys, error) {
	epoch, _ := m.epoch.Load().(string)
	if k := m.servers.Load(); k != nil && k.epoch == epoch && epoch != "" {
		return k, nil
	}
	list, err := m.sib.Interfaces(ctx)
	if err != nil {
		return nil, err
	}
	k := &serverKeys{epoch: epoch, keys: map[lanes.Name]string{}}
	for _, l := range list {
		if l.PublicKey != "" {
			k.keys[l.Name] = l.PublicKey
		}
	}
	if len(k.keys) < 2 {
		return nil, fault.New(fault.Unavailable, "the lanes are not up yet").WithReason("lanes").WithRetryAfter(time.Second)
	}
	m.servers.Store(k)
	return k, nil
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
