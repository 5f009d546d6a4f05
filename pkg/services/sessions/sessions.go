// Package sessions is the service that owns sessions: it opens them, keeps them
// online while a device is heard from, closes them, and is the only one that
// tells lanes which peers there should be.
//
// It owns sessions.db and the agreement of sessions with peers and leases. A
// session is durable before its peer exists, and closed durably before its
// peer goes, so that a crash anywhere is finished by the next Sync. It leaves
// accounts, devices, addresses and interfaces to its siblings. A Manager may
// be used concurrently. DESIGN.md tells about locks and crashes.
package sessions

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

// Siblings is what sessions asks of other services.
type Siblings interface {
	Account(ctx context.Context, user id.User) (*users.Account, error)
	Device(ctx context.Context, user id.User, device id.Device) (*auth.Device, error)
	AddUsage(ctx context.Context, seq int64, usage []users.Usage) error

	Acquire(ctx context.Context, device id.Device, user id.User) (*ipam.Lease, error)
	Release(ctx context.Context, device id.Device) error
	LeasesOf(ctx context.Context, user id.User) ([]ipam.Lease, error)

	Lanes
}

// Lanes is what sessions asks of the lanes service.
type Lanes interface {
	Put(ctx context.Context, p lanes.Peer) (epoch string, err error)
	Remove(ctx context.Context, peers ...lanes.Removal) (*lanes.Removed, error)
	Sync(ctx context.Context, peers []lanes.Peer) (*lanes.Synced, error)
	Stats(ctx context.Context) (*lanes.StatsReply, error)
	Epoch(ctx context.Context) (*lanes.EpochReply, error)
	Interfaces(ctx context.Context) ([]lanes.Lane, error)
}

// Deps are what a Manager works with.
type Deps struct {
	DB       *database
	Siblings Siblings
	Log      *slog.Logger
	Publish  func(events.Event)
	Now      func() time.Time
}

// session is an open session with what only this service knows. Fields other
// than the identifying ones are guarded by Manager.mu.
type session struct {
	api.Session
	presharedKey string
	vpn, tor     counter
	epoch        string // of lanes, when it last confirmed the peer; "" before that
	dirty        bool   // differs from what is on disk
}

// counter turns the cumulative counters of an interface, which restart when
// the interface does, into totals.
type counter struct{ seen lanes.Counters }

// advance gives what was added since the last reading.
func (c *counter) advance(now lanes.Counters) (rx, tx int64) {
	rx, tx = now.RxBytes-c.seen.RxBytes, now.TxBytes-c.seen.TxBytes
	if rx < 0 || tx < 0 { // the interface started anew
		rx, tx = now.RxBytes, now.TxBytes
	}
	c.seen = now
	return rx, tx
}

// Manager owns the open sessions.
type Manager struct {
	cfg     Config
	db      *database
	sib     Siblings
	log     *slog.Logger
	publish func(events.Event)
	now     func() time.Time

	users   locks // exclusive: closing a user's sessions; shared: opening one
	devices locks // exclusive: opening or closing a device's session

	// gate is held shared by single changes to lanes and exclusively by Sync,
	// which would otherwise undo changes made while its list was on its way.
	gate sync.RWMutex

	mu       sync.Mutex
	byID     map[id.Session]*session
	byDevice map[id.Device]*session
	byKey    map[string]*session
	closing  map[string]id.Device // by key: closed durably, peer perhaps still there
	usage    map[id.User]*users.Usage

	epoch   atomic.Value // string: the epoch of the last Sync
	synced  atomic.Bool
	servers atomic.Pointer[serverKeys]
	wake    chan struct{} // asks the reconciler to look now
}

// New makes a Manager that knows nothing yet; call Load, then Run.
func New(cfg Config, d Deps) *Manager {
	m := &Manager{
		cfg: cfg, db: d.DB, sib: d.Siblings, log: d.Log, publish: d.Publish, now: d.Now,
		byID: map[id.Session]*session{}, byDevice: map[id.Device]*session{}, byKey: map[string]*session{},
		closing: map[string]id.Device{}, usage: map[id.User]*users.Usage{},
		wake: make(chan struct{}, 1),
	}
	if m.now == nil {
		m.now = time.Now
	}
	m.epoch.Store("")
	return m
}

// Load takes over the open sessions from disk. Their silence starts now: a
// restart of ours is no silence of theirs. Sessions whose addresses are no
// longer in a lane's prefix are closed.
func (m *Manager) Load(ctx context.Context) error {
	open, err := m.db.loadOpen(ctx)
	if err != nil {
		return err
	}
	now := m.now()
	for _, s := range open {
		if !m.cfg.fits(s) {
			if err := m.db.close(ctx, s.ID, api.LeaseReleased, now); err != nil {
				return err
			}
			m.log.Warn("session_outside_pools_closed", "session", s.ID, "user", s.Username)
			continue
		}
		if s.State == api.Online {
			s.LastHeartbeat = &now
		}
		m.add(s)
	}
	return nil
}

// add and drop keep the indexes. The caller holds mu, or is alone.
func (m *Manager) add(s *session) {
	m.byID[s.ID] = s
	m.byDevice[s.Device] = s
	m.byKey[s.PublicKey] = s
}

func (m *Manager) drop(s *session) {
	delete(m.byID, s.ID)
	if m.byDevice[s.Device] == s {
		delete(m.byDevice, s.Device)
	}
	if m.byKey[s.PublicKey] == s {
		delete(m.byKey, s.PublicKey)
	}
}

// open gives a device's open session.
func (m *Manager) open(device id.Device) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byDevice[device]
}

// Ready tells whether lanes holds what sessions wants.
func (m *Manager) Ready() error {
	if !m.synced.Load() {
		return fault.New(fault.Unavailable, "the interfaces do not hold the peers yet")
	}
	return nil
}

// Overview counts sessions.
func (m *Manager) Overview() api.Overview {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := api.Overview{Closing: len(m.closing), Synced: m.synced.Load()}
	o.LanesEpoch, _ = m.epoch.Load().(string)
	for _, s := range m.byID {
		if s.State == api.Online {
			o.Online++
		} else {
			o.Offline++
		}
	}
	return o
}

func (m *Manager) tell(kind string, s *session, reason api.Reason) {
	m.publish(events.Event{Type: kind, User: s.Username, Device: s.DeviceName, Session: s.ID, Reason: string(reason)})
	m.log.Info(kind, "session", s.ID, "user", s.Username, "device", s.DeviceName, "reason", reason)
}
