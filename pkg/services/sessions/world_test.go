package sessions_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/sessions"
	"vpnd/pkg/store"
	"vpnd/pkg/wgdev"
)

// world is a state folder, siblings, and the process of sessions that runs now.
type world struct {
	t   testing.TB
	dir string
	*siblings
	cfg sessions.Config

	*sessions.Manager
	proc *process
	db   *store.DB
	end  context.CancelFunc
	done chan struct{}

	seenMu sync.Mutex
	seen   []events.Event
}

func testConfig() sessions.Config {
	return sessions.Config{
		HeartbeatTTL: 90 * time.Second, HardTTL: 24 * time.Hour, History: 7 * 24 * time.Hour,
		Endpoint: "vpn.example.org", ControlPort: "4605", Keepalive: 25 * time.Second,
		VPN: config.Lane{Interface: "wg0", Port: 51820, MTU: 1420,
			IPv4: netip.MustParsePrefix("10.8.0.0/16"), IPv6: netip.MustParsePrefix("fd08::/64"),
			DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}},
		Tor: config.Lane{Interface: "wg1", Port: 51821, MTU: 1420,
			IPv4: netip.MustParsePrefix("10.9.0.0/16"), IPv6: netip.MustParsePrefix("fd09::/64")},
	}
}

// newWorld makes users alice (devices a1, a2) and bob (b1), and starts sessions.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), siblings: newSiblings(), cfg: testConfig()}
	w.addUser("alice", "a1", "a2")
	w.addUser("bob", "b1")
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// inBubble runs fn where time passes only when everybody waits.
func inBubble(t *testing.T, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		synctest.Wait()
		fn(w)
	})
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.db, err = store.Open(context.Background(), store.Options{Path: filepath.Join(w.dir, "sessions.db"), Migrations: sessions.Migrations()}); err != nil {
		w.t.Fatal(err)
	}
	w.proc = &process{siblings: w.siblings}
	w.Manager, err = sessions.New(w.cfg, sessions.Deps{DB: w.db, Siblings: w.proc, Publish: func(e events.Event) {
		w.seenMu.Lock()
		defer w.seenMu.Unlock()
		w.seen = append(w.seen, e)
	}})
	if err == nil {
		err = w.Load(context.Background())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.end, w.done = cancel, done
	m := w.Manager
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
}

// stop ends the process in good order.
func (w *world) stop() {
	w.end()
	<-w.done
	_ = w.db.Close()
}

// crash ends the process at once: nothing reaches disk or siblings any more.
func (w *world) crash() {
	w.proc.kill()
	_ = w.db.Close()
	w.end()
	<-w.done
}

func (w *world) restart() {
	w.t.Helper()
	w.crash()
	w.start()
}

func newKey() string {
	k, err := wgdev.GeneratePrivateKey()
	if err != nil {
		panic(err)
	}
	return k.Public().String()
}

func request(user id.User, device id.Device, key string) sessions.Request {
	return sessions.Request{User: user, Device: device, PublicKey: key, Remote: "203.0.113.9"}
}

func (w *world) openAs(user id.User, device id.Device, key string) *client.Initiated {
	w.t.Helper()
	got, err := w.Open(context.Background(), request(user, device, key))
	if err != nil {
		w.t.Fatalf("open %s: %v", device, err)
	}
	return got
}

func (w *world) get(ref string) api.Session {
	w.t.Helper()
	s, err := w.Find(context.Background(), ref)
	if err != nil {
		w.t.Fatalf("find %s: %v", ref, err)
	}
	return s
}

// events gives what was published since the last time, as "type reason".
func (w *world) events() (out []string) {
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	for _, e := range w.seen {
		out = append(out, e.Type+" "+e.Reason)
	}
	w.seen = nil
	return out
}

func (w *world) listed() []api.Session {
	w.t.Helper()
	l, err := w.List(api.ListRequest{Limit: 10_000})
	if err != nil {
		w.t.Fatal(err)
	}
	return l.Items
}

// agrees checks that open sessions in memory and on disk, peers and leases are
// the same.
func (w *world) agrees() {
	w.t.Helper()
	peers := w.peers()
	open := w.listed()
	onDisk := map[string]bool{}
	err := w.db.Read(context.Background(), func(q store.Querier) error {
		rows, err := q.Query(`SELECT id FROM sessions WHERE closed = 0`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var sid string
			if err := rows.Scan(&sid); err != nil {
				return err
			}
			onDisk[sid] = true
		}
		return rows.Err()
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(onDisk) != len(open) || len(peers) != len(open) {
		w.t.Errorf("%d open sessions, %d on disk, %d peers", len(open), len(onDisk), len(peers))
	}
	w.siblings.mu.Lock()
	defer w.siblings.mu.Unlock()
	for _, s := range open {
		if !onDisk[string(s.ID)] {
			w.t.Errorf("session %s of %s is not on disk", s.ID, s.Device)
		}
		p, ok := peers[s.PublicKey]
		if !ok {
			w.t.Errorf("session %s of %s has no peer", s.ID, s.Device)
			continue
		}
		l := w.leases[s.Device]
		if p.Device != s.Device || p.VPN[0] != s.VPNIPv4 || p.Tor[1] != s.TorIPv6 || l.VPN.IPv4 != s.VPNIPv4 || l.Tor.IPv6 != s.TorIPv6 {
			w.t.Errorf("session %+v, peer %+v, lease %+v", s, p, l)
		}
	}
	if o := w.Overview(); o.Closing != 0 || !o.Synced || o.LanesEpoch != w.epoch {
		w.t.Errorf("overview %+v, lanes is at %s", o, w.epoch)
	}
}

// settle gives the reconciler time.
func (w *world) settle() {
	time.Sleep(time.Minute)
	synctest.Wait()
}

func wantFault(t testing.TB, what string, err error, code fault.Code, reason string) {
	t.Helper()
	if !errors.Is(err, code) || fault.ReasonOf(err) != reason {
		t.Errorf("%s: got %v (%s, %q), want %s, %q", what, err, fault.CodeOf(err), fault.ReasonOf(err), code, reason)
	}
}

var addrEqual = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
