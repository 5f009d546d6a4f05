package sessions

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// Deps are what a Manager works with. DB and Siblings are required.
type Deps struct {
	DB       *store.DB // opened with Migrations
	Siblings Siblings
	Log      *slog.Logger
	Publish  func(events.Event)
	Now      func() time.Time
}

// session is an open session with what only this service knows. What may
// change after it was opened is guarded by Manager.mu.
type session struct {
	api.Session
	presharedKey string
	vpn, tor     counter
	epoch        string    // of lanes, when it last confirmed the peer; "" before that
	confirmed    time.Time // when this process first knew that lanes has the peer, and no other of the device
	dirty        bool      // differs from what is on disk
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

// leftover is whose peer a key was whose session is closed.
type leftover struct {
	user   id.User
	device id.Device
}

// Manager owns the open sessions.
type Manager struct {
	cfg     Config
	db      *database
	sib     Siblings
	log     *slog.Logger
	publish func(events.Event)
	now     func() time.Time

	// Locks are taken in this order: users, devices, gate, mu.
	users   keyLocks // alone: closing a user's sessions; shared: opening one
	devices keyLocks // alone: opening or closing a device's session
	// gate is shared by single changes to lanes and closed by Sync, which would
	// otherwise undo changes made while its list was on its way.
	gate gate

	mu       sync.Mutex
	byID     map[id.Session]*session
	byDevice map[id.Device]*session
	byKey    map[string]*session
	byAddr   map[netip.Addr]*session // both lanes, both families
	closing  map[string]leftover     // by key: closed durably, peer perhaps still there
	epoch    string                  // of lanes, at the last Sync; "" before the first
	synced   bool                    // lanes held what it should when it was last asked
	resync   bool                    // lanes may hold something else although its epoch is the same
	servers  serverKeys              // of the epoch asked for last
	suspects map[id.Device]bool      // differed from lanes in the last reading

	first chan struct{} // closed after the first Sync
	wake  chan struct{} // asks for a look at lanes now
}

// New makes a Manager that knows nothing yet; call Load, then Run.
func New(cfg Config, d Deps) (*Manager, error) {
	if d.DB == nil || d.Siblings == nil {
		return nil, errors.New("sessions: a dependency is missing")
	}
	m := &Manager{
		cfg: cfg, db: &database{d.DB}, sib: d.Siblings, log: d.Log, publish: d.Publish, now: d.Now,
		byID: map[id.Session]*session{}, byDevice: map[id.Device]*session{}, byKey: map[string]*session{},
		byAddr:  map[netip.Addr]*session{},
		closing: map[string]leftover{}, gate: newGate(), first: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.publish == nil {
		m.publish = func(events.Event) {}
	}
	if m.now == nil {
		m.now = time.Now
	}
	return m, nil
}

// Load takes over the open sessions from disk. Their silence starts now: a
// restart of ours is no silence of theirs.
func (m *Manager) Load(ctx context.Context) error {
	open, err := m.db.loadOpen(ctx)
	if err != nil {
		return err
	}
	now := m.stamp()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range open {
		if s.State == api.Online {
			s.LastHeartbeat = &now
		}
		m.add(s)
	}
	return nil
}

// stamp is now as the database keeps it.
func (m *Manager) stamp() time.Time { return m.now().UTC().Truncate(time.Microsecond) }

// add and drop keep the indexes. The caller holds mu.
func (m *Manager) add(s *session) {
	m.byID[s.ID] = s
	m.byDevice[s.Device] = s
	m.byKey[s.PublicKey] = s
	for _, a := range s.addresses() {
		m.byAddr[a] = s
	}
}

func (m *Manager) drop(s *session) {
	delete(m.byID, s.ID)
	if m.byDevice[s.Device] == s {
		delete(m.byDevice, s.Device)
	}
	if m.byKey[s.PublicKey] == s {
		delete(m.byKey, s.PublicKey)
	}
	for _, a := range s.addresses() {
		if m.byAddr[a] == s { // a new session of the device may have them already
			delete(m.byAddr, a)
		}
	}
}

// open gives a device's open session, or nil.
func (m *Manager) open(device id.Device) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byDevice[device]
}

// Ready tells whether lanes holds what sessions wants.
func (m *Manager) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.synced {
		return fault.New(fault.Unavailable, "the interfaces do not hold the peers yet")
	}
	return nil
}

// Overview counts sessions.
func (m *Manager) Overview() api.Overview {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := api.Overview{Closing: len(m.closing), Synced: m.synced, LanesEpoch: m.epoch}
	for _, s := range m.byID {
		if s.State == api.Online {
			o.Online++
		} else {
			o.Offline++
		}
	}
	return o
}

// tell announces what happened to a session. Only fields that never change are
// read of it.
func (m *Manager) tell(ctx context.Context, kind string, s *session, reason api.Reason) {
	m.publish(events.Event{Type: kind, User: s.Username, Device: s.DeviceName, Session: s.ID, Reason: string(reason)})
	about := s.about(ctx)
	if reason != api.Connected && reason != api.Recovered { // which say no more than the kind
		about = append(about, "reason", reason)
	}
	m.log.InfoContext(ctx, kind, about...)
}

// about is what every log line about a session says of it. Only fields that
// never change are read.
func (s *session) about(ctx context.Context) []any {
	about := []any{"user", s.Username, "device", s.DeviceName, "session", s.ID}
	if request := rpc.RequestID(ctx); request != "" {
		about = append(about, "request_id", request)
	}
	return about
}
