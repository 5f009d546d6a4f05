package tor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/sessions"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/config"
	"vpnd/pkg/durable"
	"vpnd/pkg/fault"
)

// world is the service with a fake tor, and fakes of the other services.
type world struct {
	t       *testing.T
	dir     string
	cfg     config.Config
	gateway netip.Addr
	s       *Service
	stop    func()

	mu      sync.Mutex
	asks    []lanes.TorState
	silent  bool // lanes does not answer
	open    []sessions.Session
	users   map[string]string // id by name
	events  []events.Event
	session error
}

var worlds atomic.Uint32

// still is a world whose service is made and does not run.
func still(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "ft") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, dir: dir, cfg: config.Default(), stop: func() {}, users: map[string]string{"alice": "u1", "bob": "u2"},
		gateway: netip.AddrFrom4([4]byte{127, 80, byte(worlds.Add(1)), 1}),
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, sub := range []string{"state", "run", "fake"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.cfg.Tor.Binary = filepath.Join(dir, "tor")
	w.cfg.Tor.ProbeEvery = config.Duration(200 * time.Millisecond)
	w.order(well())
	w.install()
	w.make()
	return w
}

// begun is a world whose service runs.
func begun(t *testing.T) *world {
	t.Helper()
	w := still(t)
	w.start()
	return w
}

func (w *world) install() {
	self, err := os.Executable()
	if err == nil {
		err = os.WriteFile(w.cfg.Tor.Binary, fmt.Appendf(nil, "#!/bin/sh\n%s='%s' exec '%s' \"$@\"\n", fakeDir, filepath.Join(w.dir, "fake"), self), 0o700)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) make() {
	w.t.Helper()
	s, err := newService(w.cfg, paths{filepath.Join(w.dir, "state"), filepath.Join(w.dir, "run")}, slog.New(slog.DiscardHandler), w.publish, w.siblings())
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
}

// start runs the service; the world's end ends it, and its tor.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func(s *Service) { _ = s.run(ctx, nil); close(done) }(w.s)
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(func() {
		w.stop()
		if p := adopt(w.s.paths); p != nil {
			_ = p.stop(9, 5*time.Second)
		}
	})
}

// restart is a service that ends and comes back.
func (w *world) restart() {
	w.stop()
	w.make()
	w.start()
}

func (w *world) publish(e events.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *world) siblings() siblings {
	return siblings{
		setTor: func(_ context.Context, a *lanes.TorAsk) (*lanes.TorAnswer, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.silent {
				return nil, fault.New(fault.Unavailable, "lanes is away")
			}
			w.asks = append(w.asks, a.Body.State)
			return &lanes.TorAnswer{State: a.Body.State, Since: time.Now(), Gateways: []netip.Addr{w.gateway}}, nil
		},
		owner: func(_ context.Context, a netip.Addr) (*sessions.Owner, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.open {
				if s.TorIPv4 == a {
					return &sessions.Owner{User: s.User, Username: s.Username, DeviceName: s.DeviceName, Addresses: []netip.Addr{a}}, nil
				}
			}
			return nil, fault.New(fault.NotFound, "nobody has %s", a)
		},
		user: func(_ context.Context, ref string) (*users.User, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for name, uid := range w.users {
				if ref == name || ref == uid {
					return &users.User{ID: id.User(uid), Username: name}, nil
				}
			}
			return nil, fault.New(fault.NotFound, "there is no user %s", ref)
		},
		session: func(_ context.Context, ref string) (*sessions.Session, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.open {
				if ref == s.Username+"/"+s.DeviceName {
					return &s, nil
				}
			}
			return nil, fault.New(fault.NotFound, "there is no session %s", ref)
		},
		sessions: func(_ context.Context, user string) (out []sessions.Session, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.open {
				if user == "" || user == string(s.User) {
					out = append(out, s)
				}
			}
			return out, w.session
		},
	}
}

// connect opens a session of a device.
func (w *world) connect(user, device, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, sessions.Session{State: sessions.Online, User: id.User(w.users[user]), Username: user, DeviceName: device, TorIPv4: netip.MustParseAddr(address)})
}

func (w *world) order(o orders) {
	w.t.Helper()
	if err := durable.WriteJSON(filepath.Join(w.dir, "fake", "orders"), o); err != nil {
		w.t.Fatal(err)
	}
}

// commands are what tor was told, but for questions.
func (w *world) commands() []string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "fake", "commands"))
	return strings.Split(string(b), "\n")
}

// until waits for a status.
func (w *world) until(what string, holds func(*api.Status) bool) *api.Status {
	w.t.Helper()
	for end := time.Now().Add(45 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		st := w.s.Status()
		if holds(st) {
			return st
		}
		if time.Now().After(end) {
			text, _ := json.Marshal(st)
			w.t.Fatalf("never came: %s; the status is %s", what, text)
		}
	}
}

func (w *world) up() *api.Status {
	w.t.Helper()
	return w.until("up", func(st *api.Status) bool { return st.Lane == string(lanes.TorUp) })
}

// maintenance waits for a reason that contains the text.
func (w *world) maintenance(text string) *api.Status {
	w.t.Helper()
	return w.until("maintenance: "+text, func(st *api.Status) bool {
		return st.Lane == string(lanes.TorMaintenance) && strings.Contains(st.Reason, text)
	})
}

func (w *world) wish(v api.Wish, message string) *api.Status {
	w.t.Helper()
	st, err := w.s.setWish(w.t.Context(), func(x *wish) { x.Wish, x.Message = v, message })
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}
