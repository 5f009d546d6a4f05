package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// Deps are what Auth works with. DB, Keys, Users, Sessions and Passwords are
// required.
type Deps struct {
	DB        *store.DB // opened with Migrations
	Keys      Keys
	Users     Users
	Sessions  Sessions
	Passwords Passwords
	Log       *slog.Logger
	Publish   func(events.Event)
	Now       func() time.Time
}

// Auth signs people in.
type Auth struct {
	cfg       config.Auth
	db        *store.DB
	keys      Keys
	users     Users
	sessions  Sessions
	passwords Passwords
	log       *slog.Logger
	publish   func(events.Event)
	now       func() time.Time

	guard  *guard
	nonces *nonces

	// changing keeps the order of memory and database the same. It is held for
	// one commit at a time and never while a sibling is asked.
	changing sync.Mutex
	devices  devices
	revoked  map[id.User]uint64 // when, counted in revocations; guarded by changing
	count    uint64             // revocations so far; guarded by changing

	unready atomic.Pointer[string] // why keys cannot be used; nil when they can
	wake    chan struct{}          // a task was left to Run
	seen    chan sighting          // sign-ins that users should hear of
}

// New prepares an Auth. Load must run before anything else.
func New(cfg config.Auth, deps Deps) (*Auth, error) {
	if deps.DB == nil || deps.Keys == nil || deps.Users == nil || deps.Sessions == nil || deps.Passwords == nil {
		return nil, errors.New("auth: a dependency is missing")
	}
	a := &Auth{
		cfg: cfg, db: deps.DB, keys: deps.Keys, users: deps.Users, sessions: deps.Sessions, passwords: deps.Passwords,
		log: deps.Log, publish: deps.Publish, now: deps.Now,
		devices: devices{byID: map[id.Device]device{}, byUser: map[id.User][]id.Device{}},
		revoked: map[id.User]uint64{},
		wake:    make(chan struct{}, 1),
		seen:    make(chan sighting, 256),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.publish == nil {
		a.publish = func(events.Event) {}
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.guard = newGuard(cfg.Guard, a.now)
	a.nonces = &nonces{now: a.now, until: map[nonce]time.Time{}}
	waiting := "waiting for the keys"
	a.unready.Store(&waiting)
	return a, nil
}

// Load reads into memory what must not be asked of the disk on every call.
func (a *Auth) Load(ctx context.Context) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	return a.db.Read(ctx, func(q store.Querier) error {
		if err := a.loadDevices(q); err != nil {
			return fmt.Errorf("load devices: %w", err)
		}
		if err := a.loadNonces(q); err != nil {
			return fmt.Errorf("load nonces: %w", err)
		}
		if err := a.loadGuard(q); err != nil {
			return fmt.Errorf("load guard: %w", err)
		}
		return nil
	})
}

func (a *Auth) loadDevices(q store.Querier) error {
	rows, err := q.Query(`SELECT d.id, d.user_id, d.username, d.name, d.os, d.created_at, d.last_seen_at, d.address, d.deleting,
		coalesce(f.expires_at, 0), coalesce(f.revoked, '') FROM devices d LEFT JOIN families f ON f.device_id = d.id`)
	if err != nil {
		return err
	}
	for rows.Next() {
		var d device
		if err := rows.Scan(&d.id, &d.user, &d.username, &d.name, &d.os, &d.createdAt, &d.lastSeen, &d.address, &d.deleting,
			&d.expires, &d.revoked); err != nil {
			return err
		}
		a.devices.put(d)
	}
	return rows.Err()
}

func (a *Auth) loadNonces(q store.Querier) error {
	rows, err := q.Query(`SELECT nonce, expires_at FROM nonces WHERE expires_at > ?`, a.now())
	if err != nil {
		return err
	}
	for rows.Next() {
		var raw []byte
		var until time.Time
		if err := rows.Scan(&raw, &until); err != nil {
			return err
		}
		if len(raw) == nonceBytes {
			a.nonces.until[nonce(raw)] = until
		}
	}
	return rows.Err()
}

func (a *Auth) loadGuard(q store.Querier) error {
	rows, err := q.Query(`SELECT bucket, until FROM guard WHERE until > ?`, a.now())
	if err != nil {
		return err
	}
	for rows.Next() {
		var b bucket
		var until time.Time
		if err := rows.Scan(&b, &until); err != nil {
			return err
		}
		if b != "" {
			a.guard.restore(b, until)
		}
	}
	return rows.Err()
}

// stamp is now as the database keeps it, so that answers are the same before
// and after a restart.
func (a *Auth) stamp() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

// Ready tells whether sign-ins can work: keys must answer.
func (a *Auth) Ready() error {
	if why := a.unready.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// announce tells the event feed and the log of something that happened to a
// device.
func (a *Auth) announce(ctx context.Context, level slog.Level, kind string, d device, remote, reason string) {
	e := events.Event{Type: kind, User: d.username, Device: d.name, Reason: reason, Data: map[string]string{"device_id": string(d.id)}}
	if remote != "" {
		e.Data["remote"] = remote
	}
	a.publish(e)
	about := []any{"user", d.username, "device", d.name, "request_id", rpc.RequestID(ctx)}
	if remote != "" {
		about = append(about, "remote", remote)
	}
	if reason != "" {
		about = append(about, "reason", reason)
	}
	if strings.HasPrefix(kind, "device.") {
		about = append(about, "device_id", d.id)
	}
	a.log.Log(ctx, level, kind, about...)
}
