package auth_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/auth"
	"vpnd/pkg/store"
)

// world is everything around an Auth: siblings that can be told to fail, a
// clock, and a database that outlives the process.
type world struct {
	path string
	cfg  config.Auth
	log  *lockedBuffer

	mu       sync.Mutex
	at       time.Time
	accounts map[string]*usersapi.Credentials
	keysDown error
	down     error // of sessions
	block    chan struct{}
	closes   []string
	hashed   int // Argon2 computations, real or dummy
	onVerify func()
	seen     []events.Event
	noted    []id.User

	auth  *auth.Auth
	db    *store.DB
	close func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	cfg := config.Default().Auth
	cfg.Guard = config.Guard{PerAccount: 4, PerAddress: 8, Global: 100, Window: config.Duration(10 * time.Minute)}
	w := &world{
		path: filepath.Join(t.TempDir(), "auth.db"), cfg: cfg, log: &lockedBuffer{},
		at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), accounts: map[string]*usersapi.Credentials{},
	}
	w.account("alice", 3)
	w.account("bob", 2)
	w.open(t)
	return w
}

func (w *world) account(name string, limit int) *usersapi.Credentials {
	c := &usersapi.Credentials{
		ID: id.User("usr_" + name), Username: name, Email: name + "@example.org", Status: usersapi.Active,
		DeviceLimit: limit, PasswordHash: "hash:password of " + name,
	}
	w.accounts[name] = c
	return c
}

func (w *world) open(t *testing.T) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: w.path, Migrations: auth.Migrations()})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(w.cfg, auth.Deps{
		DB: db, Keys: fakeKeys{w}, Users: fakeUsers{w}, Sessions: fakeSessions{w}, Passwords: fakePasswords{w},
		Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: w.now,
		Publish: func(e events.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, e)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.auth, w.db = a, db
	w.close = sync.OnceFunc(func() { _ = db.Close() })
	t.Cleanup(w.close)
}

// restart is a crash, as far as unfinished tasks go.
func (w *world) restart(t *testing.T) {
	t.Helper()
	w.close()
	w.open(t)
}

func (w *world) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	a := w.auth
	go func() { defer close(done); _ = a.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) takeCloses() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.closes
	w.closes = nil
	return out
}

func (w *world) takeEvents() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.seen {
		out = append(out, strings.Join(strings.Fields(e.Type+" "+e.User+" "+e.Device+" "+e.Reason), " "))
	}
	w.seen = nil
	return out
}

func (w *world) tasksLeft(t *testing.T) (n int) {
	t.Helper()
	if err := w.db.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow(`SELECT count(*) FROM tasks`).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// fakeKeys "seals" by base64.
type fakeKeys struct{ *world }

func (k fakeKeys) failing() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keysDown
}

func (k fakeKeys) Open(_ context.Context, s client.Sealed) ([]byte, error) {
	if err := k.failing(); err != nil {
		return nil, err
	}
	if s.KID != "good" {
		return nil, fault.New(fault.Invalid, "no such key").WithReason("unknown_key")
	}
	return base64.StdEncoding.DecodeString(s.Ciphertext)
}

func (k fakeKeys) Sign(_ context.Context, u id.User, d id.Device, ttl time.Duration) (string, error) {
	return fmt.Sprintf("access %s %s %s", u, d, ttl), k.failing()
}

func (k fakeKeys) Ready(context.Context) error { return k.failing() }

type fakeUsers struct{ *world }

func (u fakeUsers) Lookup(_ context.Context, login string) (*usersapi.Credentials, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	name, _, _ := strings.Cut(strings.ToLower(login), "@")
	if c := u.accounts[name]; c != nil {
		cp := *c
		return &cp, nil
	}
	return nil, fault.New(fault.NotFound, "no such user")
}

func (u fakeUsers) Standing(_ context.Context, ref string) (*usersapi.Account, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.accounts {
		if string(c.ID) == ref || c.Username == ref {
			return &usersapi.Account{ID: c.ID, Username: c.Username, Email: c.Email, Status: c.Status, DeviceLimit: c.DeviceLimit}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "no user %q", ref)
}

func (u fakeUsers) Seen(_ context.Context, user id.User, _ time.Time) error {
	u.set(func() { u.noted = append(u.noted, user) })
	return nil
}

type fakeSessions struct{ *world }

func (s fakeSessions) Close(ctx context.Context, d id.Device, r sessions.Reason, forget bool) error {
	s.mu.Lock()
	s.closes = append(s.closes, fmt.Sprintf("%s %s %v", d, r, forget))
	down, block := s.down, s.block
	s.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return down
}

type fakePasswords struct{ *world }

func (p fakePasswords) Verify(_ context.Context, hash, password string) (bool, error) {
	p.mu.Lock()
	p.hashed++
	hook := p.onVerify
	p.mu.Unlock()
	if hook != nil {
		hook()
	}
	return hash == "hash:"+password, nil
}

func (p fakePasswords) Dummy(context.Context, string) error {
	p.set(func() { p.hashed++ })
	return nil
}

// attempt is a sign-in to be.
type attempt struct {
	login, password string
	device          client.LoginDevice
	remote          string
	issuedAt        time.Time
	nonce           string
}

func (w *world) attempt(name string) attempt {
	var n [16]byte
	_, _ = rand.Read(n[:])
	return attempt{
		login: name, password: "password of " + name, device: client.LoginDevice{Name: "laptop", OS: "linux"},
		remote: "192.0.2.1", issuedAt: w.now(), nonce: base64.StdEncoding.EncodeToString(n[:]),
	}
}

func (w *world) login(t *testing.T, a attempt) (*client.Tokens, error) {
	t.Helper()
	plain, err := json.Marshal(client.Login{Login: a.login, Password: a.password, Device: a.device, IssuedAt: a.issuedAt, Nonce: a.nonce})
	if err != nil {
		t.Fatal(err)
	}
	req := &authapi.LoginRequest{}
	req.Body.Sealed = client.Sealed{KID: "good", Enc: "AA==", Ciphertext: base64.StdEncoding.EncodeToString(plain)}
	req.Body.Remote = a.remote
	return w.auth.Login(t.Context(), req)
}

// signedIn signs in with a fresh device of this name.
func (w *world) signedIn(t *testing.T, user, device string) *client.Tokens {
	t.Helper()
	a := w.attempt(user)
	a.device.Name = device
	tokens, err := w.login(t, a)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func refresh(token string) *authapi.RefreshRequest {
	r := &authapi.RefreshRequest{}
	r.Body.RefreshToken, r.Body.Remote = token, "192.0.2.1"
	return r
}

func (w *world) reauth(t *testing.T, token string) (*client.Tokens, error) {
	t.Helper()
	return w.auth.Reauth(t.Context(), refresh(token))
}

func (w *world) check(t *testing.T, user id.User, device id.Device) error {
	t.Helper()
	_, err := w.auth.DeviceCheck(t.Context(), &authapi.CheckRequest{User: user, Device: device})
	return err
}

func wantFault(t *testing.T, what string, err error, code fault.Code, reason string) {
	t.Helper()
	if fault.CodeOf(err) != code || fault.ReasonOf(err) != reason {
		t.Errorf("%s: got %v (%s, %q), want %s, %q", what, err, fault.CodeOf(err), fault.ReasonOf(err), code, reason)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

var errDown = fault.New(fault.Unavailable, "not reachable")

func contains(list []string, want string) bool { return slices.Contains(list, want) }
