// Package fakevpnd is a control socket with canned data, for tests of programs
// that talk to vpnd and for looking at them. It answers with real operations
// over a real socket and does what it is asked to, in memory only. A World may
// be used concurrently.
package fakevpnd

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// World is what the fake vpnd knows. Change it with Do.
type World struct {
	mu       sync.Mutex
	Services []supervisor.Service
	Lanes    []lanes.Lane
	Tor      tor.Status // its Lane, Reason and Since are those of Lanes
	TorNet   TorNet
	Users    []users.User
	Devices  []auth.Device
	Sessions []sessions.Session // open ones
	Closed   []sessions.Session
	Leases   []ipam.Lease
	Pools    []ipam.PoolStatus
	Trail    []control.AuditEntry
	Events   []events.Event
	Problems []control.Problem
	Access   rpc.Access
	Delay    time.Duration // before each answer
	Released []string
	Password map[string]string
	changed  chan struct{}

	LeakTests []canary.Result // the newest first
	Leaking   bool            // the next leak test fails

	Logs        []logs.Record // the oldest first
	LogStatus   logs.Status
	SavedLogs   []logs.Saved
	LogQueries  []string  // what was asked
	ExportShort bool      // an export ends half-way, as when vpnd stops
	LogService  *rpc.Conn // a real one, which answers about logs instead
}

// Now is the time of the canned data.
func Now() time.Time { return time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC) }

func ago(d time.Duration) time.Time { return Now().Add(-d) }

func ptr[T any](v T) *T { return &v }

// New makes a world with a few people in it.
func New() *World {
	w := &World{Access: rpc.Admin, LeakTests: leakTests(), Password: map[string]string{}, changed: make(chan struct{})}
	w.Logs, w.LogStatus, w.SavedLogs = logLines(), logStatus(), savedLogs()
	service := func(name, state string) supervisor.Service {
		return supervisor.Service{
			Name: name, State: state, Since: ago(76 * time.Hour), Enabled: true, PID: 4000 + len(w.Services), StartedAt: ptr(ago(76 * time.Hour)),
			User: "vpnd-" + name, Socket: "/run/vpnd/" + name + ".sock", Command: []string{"/usr/sbin/vpnd", "service", name}, PingMicros: 240,
		}
	}
	for _, n := range []string{"auth", "control", "gateway", "ipam", "keys", "lanes", "sessions", "users"} {
		w.Services = append(w.Services, service(n, "ready"))
	}
	w.Services[6].Restarts = 1
	w.Services[6].LastExit, w.Services[6].LastExitAt = "killed by signal 9", ptr(ago(2*time.Hour))

	w.Lanes = []lanes.Lane{
		{Name: lanes.VPN, State: "up", Since: ago(76 * time.Hour), Interface: "wg0", Backend: "userspace", Port: 51820,
			PublicKey: "c2VydmVyIGtleSBvZiBsYW5lIHZwbiAgICAgICAgICA=", IPv4: netip.MustParsePrefix("10.8.0.1/16"), IPv6: netip.MustParsePrefix("fd76:706e:6408::1/64"), MTU: 1420, Peers: 3},
		{Name: lanes.Tor, State: "up", Since: ago(76 * time.Hour), Interface: "wg1", Backend: "userspace", Port: 51821,
			PublicKey: "c2VydmVyIGtleSBvZiBsYW5lIHRvciAgICAgICAgICA=", IPv4: netip.MustParsePrefix("10.9.0.1/16"), IPv6: netip.MustParsePrefix("fd76:706e:6409::1/64"), MTU: 1420, Peers: 3},
	}
	w.Tor = tor.Status{
		Wish: tor.WishUp, WishProcess: "start", Process: tor.ProcessRunning, PID: 4711, Version: "0.4.8.16", StartedAt: ptr(ago(76 * time.Hour)), Restarts: 1,
		Bootstrap: tor.Bootstrap{Percent: 100, Tag: "done", Summary: "Done"}, EnoughDirInfo: true, Circuit: true, NetworkLive: true,
		Probe: tor.Probe{OK: true, At: ptr(ago(20 * time.Second)), TookMs: 812}, RxBytes: 3 << 30, TxBytes: 210 << 20, Isolation: "device",
	}
	w.TorNet = torNet()
	w.Users = []users.User{
		{ID: "usr_alice0000000000000", Username: "alice", Email: "alice@example.org", Status: users.Active, StatusSince: ago(40 * 24 * time.Hour), DeviceLimit: 5,
			CreatedAt: ago(40 * 24 * time.Hour), UpdatedAt: ago(40 * 24 * time.Hour), LastLoginAt: ptr(ago(26 * time.Hour)), LastSeenAt: ptr(ago(12 * time.Second)), Sessions: 12, RxBytes: 1_234_567_890, TxBytes: 23_456_789_012},
		{ID: "usr_bob000000000000000", Username: "bob", Status: users.Suspended, StatusSince: ago(3 * time.Hour), DeviceLimit: 1,
			CreatedAt: ago(8 * 24 * time.Hour), UpdatedAt: ago(3 * time.Hour), LastSeenAt: ptr(ago(3 * time.Hour)), Sessions: 1, RxBytes: 4096, TxBytes: 512},
		{ID: "usr_carol0000000000000", Username: "carol", Email: "carol@例え.example", Status: users.Active, StatusSince: ago(time.Hour), DeviceLimit: 5, CreatedAt: ago(time.Hour), UpdatedAt: ago(time.Hour)},
	}
	device := func(did id.Device, user id.User, username, name, os string, in bool) auth.Device {
		return auth.Device{ID: did, User: user, Username: username, Name: name, OS: os, CreatedAt: ago(39 * 24 * time.Hour), LastSeenAt: ptr(ago(12 * time.Second)), SignedIn: in}
	}
	w.Devices = []auth.Device{
		device("dev_alicelaptop0000000", "usr_alice0000000000000", "alice", "laptop", "linux", true),
		device("dev_alicephone00000000", "usr_alice0000000000000", "alice", "phone", "android", true),
		device("dev_carolnote000000000", "usr_carol0000000000000", "carol", "ノート", "windows", true),
		device("dev_carolevil000000000", "usr_carol0000000000000", "carol", "evil\x1b[31m", "\x1b]0;owned\a", false),
	}
	w.Sessions = []sessions.Session{
		w.session("ses_alicelaptop0000000", w.Devices[0], 2, sessions.Online, sessions.Connected, 25*time.Minute, 48<<20, 1<<30),
		w.session("ses_alicephone00000000", w.Devices[1], 3, sessions.Offline, sessions.Silent, 4*time.Minute, 12<<10, 90<<10),
		w.session("ses_carolnote000000000", w.Devices[2], 4, sessions.Online, sessions.Recovered, 9*time.Second, 0, 0),
	}
	closed := w.session("ses_alicelaptopold0000", w.Devices[0], 2, sessions.Closed, sessions.ByUser, 26*time.Hour, 5<<20, 70<<20)
	closed.ClosedAt = ptr(ago(26 * time.Hour))
	w.Closed = []sessions.Session{closed}
	for i, d := range w.Devices[:3] {
		w.Leases = append(w.Leases, ipam.Lease{Device: d.ID, User: d.User, VPN: address("10.8.0.", "fd76:706e:6408::", i+2), Tor: address("10.9.0.", "fd76:706e:6409::", i+2), CreatedAt: ago(39 * 24 * time.Hour)})
	}
	for _, l := range w.Lanes {
		w.Pools = append(w.Pools,
			ipam.PoolStatus{Lane: string(l.Name), Family: "ipv4", Prefix: l.IPv4.Masked(), Gateway: l.IPv4.Addr(), Capacity: 65533, Used: 3, Quarantined: 1, Free: 65529},
			ipam.PoolStatus{Lane: string(l.Name), Family: "ipv6", Prefix: l.IPv6.Masked(), Gateway: l.IPv6.Addr(), Capacity: 1<<63 - 1, Used: 3, Quarantined: 1, Free: 1<<63 - 5})
	}
	w.Trail = []control.AuditEntry{
		{Seq: 2, Time: ago(3 * time.Hour), Who: "root", UID: 0, PID: 4321, From: "vpnctl on pts/3, ssh from 192.0.2.7", Op: "user.suspend", Target: "bob", Result: "ok", RequestID: "0123456789ab"},
		{Seq: 1, Time: ago(40 * 24 * time.Hour), Who: "eve", UID: 1000, PID: 999, From: "curl", Op: "user.delete", Target: "alice", Result: "denied", Message: "user.delete needs admin access", RequestID: "ba9876543210"},
	}
	w.Events = []events.Event{
		{ID: "evt_0", Time: ago(76 * time.Hour), Seq: 9, Service: "supervisor", Type: "service.ready", Data: map[string]string{"service": "gateway", "was": "starting"}},
		{ID: "evt_t", Time: ago(75 * time.Hour), Seq: 3, Service: "tor", Type: "tor.bootstrapped", Message: "tor has come to 100 %"},
		{ID: "evt_1", Time: ago(3 * time.Hour), Seq: 1, Service: "users", Type: "user.suspended", User: "bob", Message: "suspended by root"},
		{ID: "evt_2", Time: ago(25 * time.Minute), Seq: 7, Service: "sessions", Type: "session.opened", User: "alice", Device: "laptop", Session: "ses_alicelaptop0000000", Reason: "connected"},
		{ID: "evt_3", Time: ago(9 * time.Second), Seq: 8, Service: "sessions", Type: "session.recovered", User: "carol", Device: "ノート", Session: "ses_carolnote000000000", Reason: "recovered", Missed: 3},
	}
	return w
}

func address(v4, v6 string, n int) ipam.Addresses {
	d := string(rune('0' + n))
	return ipam.Addresses{IPv4: netip.MustParseAddr(v4 + d), IPv6: netip.MustParseAddr(v6 + d)}
}

func (w *World) session(sid id.Session, d auth.Device, n int, state sessions.State, reason sessions.Reason, since time.Duration, rx, tx int64) sessions.Session {
	vpn, tor := address("10.8.0.", "fd76:706e:6408::", n), address("10.9.0.", "fd76:706e:6409::", n)
	return sessions.Session{
		ID: sid, User: d.User, Username: d.Username, Device: d.ID, DeviceName: d.Name, State: state, Reason: reason, Since: ago(since),
		OpenedAt: ago(since + time.Hour), ExpiresAt: Now().Add(14*24*time.Hour - since), PublicKey: "ZGV2aWNlIGtleSAgICAgICAgICAgICAgICAgICAgICA=",
		VPNIPv4: vpn.IPv4, VPNIPv6: vpn.IPv6, TorIPv4: tor.IPv4, TorIPv6: tor.IPv6, Remote: "203.0.113.9", Endpoint: "203.0.113.9:40123", Lane: "vpn",
		LastHeartbeat: ptr(ago(12 * time.Second)), LastHandshake: ptr(ago(47 * time.Second)), RxBytes: rx, TxBytes: tx, VPNRxBytes: rx, VPNTxBytes: tx,
	}
}

// Do changes the world and wakes followers.
func (w *World) Do(fn func(*World)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(w)
	close(w.changed)
	w.changed = make(chan struct{})
}

// Serve answers on the Unix socket at path until ctx ends. ready is called
// when callers are heard.
func (w *World) Serve(ctx context.Context, path string, ready func()) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s := rpc.NewServer(rpc.ServerConfig{
		Name: "vpnd", Version: "test",
		Identify: func(rpc.PeerCred) (rpc.Caller, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return rpc.Caller{Name: "root", Access: w.Access}, nil
		},
		Guard: func(ctx context.Context, _ rpc.Info, _ rpc.Request) (context.Context, error) {
			w.mu.Lock()
			delay := w.Delay
			w.mu.Unlock()
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			return ctx, nil
		},
	})
	w.handle(s)
	ready()
	return s.Serve(ctx, l)
}

// on serves op with h under the world's lock.
func on[Req, Resp any](w *World, s *rpc.Server, op rpc.Op[Req, Resp], h func(*Req) (*Resp, error)) {
	rpc.Handle(s, op, func(_ context.Context, r *Req) (*Resp, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		resp, err := h(r)
		if err != nil {
			return nil, err
		}
		still := *resp // what is sent while the world goes on
		return &still, nil
	})
}

func (w *World) handle(s *rpc.Server) {
	on(w, s, control.GetVersion, func(*struct{}) (*control.Version, error) {
		return &control.Version{Version: "1.2.3", Go: "go1.26.8", OS: "linux", Arch: "amd64"}, nil
	})
	on(w, s, control.GetStatus, func(*struct{}) (*control.Status, error) { return w.status(), nil })
	on(w, s, control.Audit, func(r *control.AuditRequest) (*rpc.List[control.AuditEntry], error) {
		return page(w.Trail, r.Limit, func(e control.AuditEntry) bool {
			return (r.Who == "" || e.Who == r.Who) && (r.Op == "" || e.Op == r.Op || strings.HasPrefix(e.Op, r.Op+".")) && !e.Time.Before(r.Since)
		}), nil
	})
	rpc.HandleStream(s, control.Events, w.follow)
	on(w, s, keys.TLSCertificate, func(*struct{}) (*keys.Certificate, error) { return &keys.Certificate{Pin: pin}, nil })
	w.handleServices(s)
	w.handleUsers(s)
	w.handleSessions(s)
	w.handleTor(s)
	w.handleTorNet(s)
	w.handleLeakTests(s)
	w.handleLogs(s)
	on(w, s, ipam.Status, func(*struct{}) (*ipam.StatusReply, error) {
		return &ipam.StatusReply{Pools: slices.Clone(w.Pools), Quarantine: 600}, nil
	})
	on(w, s, ipam.Leases, func(r *ipam.ListRequest) (*rpc.List[ipam.Lease], error) {
		return page(w.Leases, r.Limit, func(l ipam.Lease) bool { return r.User == "" || string(l.User) == r.User }), nil
	})
	on(w, s, lanes.List, func(*struct{}) (*rpc.List[lanes.Lane], error) {
		return &rpc.List[lanes.Lane]{Items: slices.Clone(w.Lanes), Total: len(w.Lanes)}, nil
	})
	on(w, s, lanes.Switch, func(r *lanes.SwitchRequest) (*lanes.Lane, error) {
		l := &w.Lanes[0]
		switch {
		case !r.Body.Up:
			l.State, l.Reason, l.Since = "down", "down by an operator", Now()
		case l.State == "down":
			l.State, l.Reason, l.Since = "up", "", Now()
		}
		return l, nil
	})
}

const pin = "sha256/N2YxZTZjN2EtMTIzNC00YzBhLTkzYjItYWJjZGVmMDEyMzQ="

func page[T any](all []T, limit int, match func(T) bool) *rpc.List[T] {
	out := &rpc.List[T]{Items: []T{}}
	for _, v := range all {
		if match(v) {
			out.Total++
			if len(out.Items) < limit {
				out.Items = append(out.Items, v)
			}
		}
	}
	return out
}

func (w *World) status() *control.Status {
	p := &control.Status{
		Healthy: len(w.Problems) == 0, Version: "1.2.3", Time: Now(), Started: ago(76 * time.Hour), Endpoint: "vpn.example.org", Pin: pin,
		Services: slices.Clone(w.Services), Lanes: slices.Clone(w.Lanes), Users: len(w.Users), Sessions: &sessions.Overview{Synced: true},
		Problems: append([]control.Problem{}, w.Problems...),
	}
	for _, v := range w.Sessions {
		switch v.State {
		case sessions.Online:
			p.Sessions.Online++
		case sessions.Offline:
			p.Sessions.Offline++
		}
	}
	return p
}

func (w *World) follow(ctx context.Context, r *control.EventsRequest, send func(events.Event) error) error {
	at := 0
	w.mu.Lock()
	if r.Follow && r.Since.IsZero() {
		at = len(w.Events)
	}
	w.mu.Unlock()
	for {
		w.mu.Lock()
		batch, changed := w.Events[at:], w.changed
		at = len(w.Events)
		w.mu.Unlock()
		for _, e := range batch {
			if (r.Type == "" || e.Type == r.Type || strings.HasPrefix(e.Type, r.Type+".")) && (r.User == "" || e.User == r.User) && !e.Time.Before(r.Since) {
				if err := send(e); err != nil {
					return err
				}
			}
		}
		if !r.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (w *World) handleServices(s *rpc.Server) {
	find := func(name string) (*supervisor.Service, error) {
		for i := range w.Services {
			if w.Services[i].Name == name {
				return &w.Services[i], nil
			}
		}
		return nil, fault.New(fault.NotFound, "there is no service %q", name).WithHint("vpnctl service list")
	}
	set := func(state string) func(*supervisor.Ref) (*supervisor.Service, error) {
		return func(r *supervisor.Ref) (*supervisor.Service, error) {
			v, err := find(r.Service)
			if err == nil {
				v.State = state
			}
			return v, err
		}
	}
	on(w, s, supervisor.List, func(*struct{}) (*rpc.List[supervisor.Service], error) {
		return &rpc.List[supervisor.Service]{Items: slices.Clone(w.Services), Total: len(w.Services)}, nil
	})
	on(w, s, supervisor.Get, func(r *supervisor.Ref) (*supervisor.Service, error) { return find(r.Service) })
	on(w, s, supervisor.Start, set("ready"))
	on(w, s, supervisor.Stop, set("stopped"))
	on(w, s, supervisor.Restart, set("ready"))
	on(w, s, supervisor.Reload, func(*struct{}) (*supervisor.Changes, error) {
		return &supervisor.Changes{Restarted: []string{"gateway"}, Unchanged: []string{"auth", "users"}}, nil
	})
}

func (w *World) handleUsers(s *rpc.Server) {
	on(w, s, users.ListUsers, func(r *users.ListRequest) (*rpc.List[users.User], error) {
		return page(w.Users, r.Limit, func(u users.User) bool {
			return (r.Status == "" || string(u.Status) == r.Status) && strings.Contains(u.Username+u.Email, r.Search)
		}), nil
	})
	on(w, s, users.Get, func(r *users.Ref) (*users.User, error) { return w.user(r.User) })
	on(w, s, users.Create, func(r *users.CreateRequest) (*users.User, error) {
		if u, err := w.user(r.Body.Username); err == nil {
			return nil, fault.New(fault.Exists, "user %q exists", u.Username).WithHint("vpnctl user get %s", u.Username)
		}
		u := users.User{
			ID: id.User("usr_" + (r.Body.Username + "0000000000000000000")[:18]), Username: r.Body.Username, Email: r.Body.Email,
			Status: users.Active, StatusSince: Now(), DeviceLimit: cmp.Or(r.Body.DeviceLimit, 5), CreatedAt: Now(), UpdatedAt: Now(),
		}
		w.Password[u.Username] = r.Body.Password
		w.Users = append(w.Users, u)
		return &u, nil
	})
	on(w, s, users.Set, func(r *users.SetRequest) (*users.User, error) {
		u, err := w.user(r.User)
		if err != nil {
			return nil, err
		}
		if r.Body.Username != nil {
			u.Username = *r.Body.Username
		}
		if r.Body.Email != nil {
			u.Email = *r.Body.Email
		}
		if r.Body.DeviceLimit != nil {
			u.DeviceLimit = *r.Body.DeviceLimit
		}
		return u, nil
	})
	on(w, s, users.SetPassword, func(r *users.PasswordRequest) (*rpc.None, error) {
		u, err := w.user(r.User)
		if err == nil {
			w.Password[u.Username] = r.Body.Password
		}
		return &rpc.None{}, err
	})
	standing := func(to users.Status) func(*users.Ref) (*users.User, error) {
		return func(r *users.Ref) (*users.User, error) {
			u, err := w.user(r.User)
			if err == nil {
				u.Status, u.StatusSince = to, Now()
			}
			return u, err
		}
	}
	on(w, s, users.Suspend, standing(users.Suspended))
	on(w, s, users.Activate, standing(users.Active))
	on(w, s, users.Delete, func(r *users.Ref) (*rpc.None, error) {
		u, err := w.user(r.User)
		if err != nil {
			return nil, err
		}
		gone := u.ID
		w.Users = slices.DeleteFunc(w.Users, func(u users.User) bool { return u.ID == gone })
		return &rpc.None{}, nil
	})
	on(w, s, auth.DeviceList, func(r *auth.DeviceListRequest) (*rpc.List[auth.Device], error) {
		return page(w.Devices, r.Limit, func(d auth.Device) bool { return r.User == "" || d.Username == r.User }), nil
	})
	on(w, s, auth.DeviceGet, func(r *auth.DeviceRef) (*auth.Device, error) { return w.device(r.Device) })
	on(w, s, auth.DeviceDelete, func(r *auth.DeviceRef) (*rpc.None, error) {
		d, err := w.device(r.Device)
		if err != nil {
			return nil, err
		}
		gone := d.ID
		w.Devices = slices.DeleteFunc(w.Devices, func(d auth.Device) bool { return d.ID == gone })
		return &rpc.None{}, nil
	})
}

func (w *World) user(name string) (*users.User, error) {
	for i, u := range w.Users {
		if u.Username == name || len(name) > 6 && strings.HasPrefix(string(u.ID), name) {
			return &w.Users[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no user %q", name).WithHint("vpnctl user list")
}

func (w *World) device(name string) (*auth.Device, error) {
	for i, d := range w.Devices {
		if d.Username+"/"+d.Name == name || len(name) > 6 && strings.HasPrefix(string(d.ID), name) {
			return &w.Devices[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no device %q", name).WithHint("vpnctl device list")
}

func (w *World) handleSessions(s *rpc.Server) {
	on(w, s, sessions.List, func(r *sessions.ListRequest) (*rpc.List[sessions.Session], error) {
		return page(w.Sessions, r.Limit, func(v sessions.Session) bool {
			return (r.User == "" || v.Username == r.User || string(v.User) == r.User) && (r.State == "" || string(v.State) == r.State)
		}), nil
	})
	on(w, s, sessions.Get, func(r *sessions.Ref) (*sessions.Session, error) {
		i, err := w.find(r.Session)
		if err != nil {
			return nil, err
		}
		return &w.Sessions[i], nil
	})
	on(w, s, sessions.Kill, func(r *sessions.Ref) (*sessions.Session, error) {
		i, err := w.find(r.Session)
		if err != nil {
			return nil, err
		}
		v := w.Sessions[i]
		v.State, v.Reason, v.Since, v.ClosedAt = sessions.Closed, sessions.ByAdmin, Now(), ptr(Now())
		w.Sessions = slices.Delete(w.Sessions, i, i+1)
		w.Closed = append([]sessions.Session{v}, w.Closed...)
		return &v, nil
	})
	on(w, s, sessions.History, func(r *sessions.HistoryRequest) (*rpc.List[sessions.Session], error) {
		return page(w.Closed, r.Limit, func(v sessions.Session) bool {
			return (r.User == "" || v.Username == r.User) && (r.Device == "" || v.DeviceName == r.Device) && !v.ClosedAt.Before(r.Since)
		}), nil
	})
	on(w, s, sessions.ReleaseLease, func(r *sessions.LeaseRef) (*rpc.None, error) {
		w.Released = append(w.Released, r.Device)
		return &rpc.None{}, nil
	})
	on(w, s, sessions.GetOverview, func(*struct{}) (*sessions.Overview, error) { return w.status().Sessions, nil })
}

func (w *World) find(name string) (int, error) {
	found := -1
	for i, v := range w.Sessions {
		if string(v.ID) == name || v.Username+"/"+v.DeviceName == name {
			return i, nil
		}
		if v.Username == name {
			if found >= 0 {
				return 0, fault.New(fault.Conflict, "user %s has several sessions", name).WithHint("name one: %s/DEVICE", name)
			}
			found = i
		}
	}
	if found < 0 {
		return 0, fault.New(fault.NotFound, "there is no session %q", name).WithHint("vpnctl session list")
	}
	return found, nil
}
