package agent_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/client/agent"
	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
	"vpnd/pkg/wgdev"
)

// fakeServer answers as it is told. Its tokens are numbered.
type fakeServer struct {
	mu                             sync.Mutex
	store                          *profile.Store
	key                            string
	initiated, beats, renewals     int
	closes                         int
	initiateErr, beatErr, renewErr error
	renewLost                      bool   // renewals are done and their answers lost
	refresh                        string // the one living refresh token
	accept                         string // the access token accepted; empty: any
	entered                        bool
	unstored                       int // calls with an access token that was not on disk
	renewed                        []time.Time
	lanesAsked                     int
	lanesErr                       error
	states                         client.LaneStates
	torEndpoint                    string // of lane tor
}

func (s *fakeServer) check(access secret.Text) error {
	p, err := s.store.Load()
	if err != nil || !p.Tokens.Access.Equal(access) {
		s.unstored++
	}
	if s.accept != "" && access.Reveal() != s.accept {
		return fault.New(fault.Unauthenticated, "not accepted").WithReason("invalid_token")
	}
	return nil
}

func (s *fakeServer) Initiate(_ context.Context, access secret.Text, _ wgdev.Key) (client.Initiated, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.initiated++
	if err := s.check(access); err != nil {
		return client.Initiated{}, err
	}
	if s.initiateErr != nil {
		return client.Initiated{}, s.initiateErr
	}
	lane := client.LaneConfig{
		Endpoint: "vpn.example.org:51820", ServerPublicKey: s.key, Addresses: []string{"10.8.0.2/32"},
		AllowedIPs: []string{"0.0.0.0/0", "::/0"}, DNS: []string{"9.9.9.9"}, PersistentKeepalive: 25, ControlURL: "https://10.8.0.1:4605",
	}
	tor := lane
	tor.Endpoint, tor.Addresses = s.torEndpoint, []string{"10.9.0.2/32"}
	return client.Initiated{SessionID: "ses_1", Lanes: client.Lanes{VPN: lane, Tor: tor}, HeartbeatTTL: 90, HardTTL: 15 * 24 * 3600}, nil
}

func (s *fakeServer) Heartbeat(_ context.Context, access secret.Text) (client.Beat, gate.Way, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats++
	if err := s.check(access); err != nil {
		return client.Beat{}, gate.Inside, err
	}
	return client.Beat{State: "online", HeartbeatTTL: 90}, gate.Inside, s.beatErr
}

func (s *fakeServer) Renew(_ context.Context, refresh secret.Text) (client.Tokens, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals++
	if s.renewErr != nil {
		return client.Tokens{}, false, s.renewErr
	}
	if refresh.Reveal() != s.refresh {
		s.beatErr = fault.New(fault.Conflict, "closed").WithReason("session_closed").WithFields(fault.Field{Path: "session", Message: "token_reuse"})
		return client.Tokens{}, false, fault.New(fault.Unauthenticated, "used before").WithReason("reuse_detected")
	}
	s.renewed = append(s.renewed, time.Now())
	t := pair(s.renewals)
	s.refresh = t.RefreshToken
	if s.accept != "" {
		s.accept = t.AccessToken
	}
	if s.renewLost {
		return client.Tokens{}, true, fault.New(fault.Timeout, "no answer")
	}
	return t, true, nil
}

func (s *fakeServer) LaneStates(_ context.Context, access secret.Text) (client.LaneStates, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanesAsked++
	if err := s.check(access); err != nil {
		return client.LaneStates{}, err
	}
	return s.states, s.lanesErr
}

func (s *fakeServer) Close(context.Context, secret.Text) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes++
	return nil
}

func (s *fakeServer) Enter(netip.AddrPort, []netip.Prefix) { s.set(func() { s.entered = true }) }
func (s *fakeServer) Leave()                               { s.set(func() { s.entered = false }) }
func (s *fakeServer) CloseIdle()                           {}

// set changes what the server does; get reads what it saw.
func (s *fakeServer) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func pair(n int) client.Tokens {
	return client.Tokens{
		AccessToken: fmt.Sprintf("access-%d", n), ExpiresIn: 900, RefreshToken: fmt.Sprintf("refresh-%d", n), RefreshExpiresIn: 30 * 24 * 3600,
		DeviceID: "dev_1", User: client.TokenUser{ID: "usr_1", Username: "alice"},
	}
}

// fakeMachine has a device whose peer answers or not.
type fakeMachine struct {
	mu        sync.Mutex
	cfg       tunnel.Config
	connects  []netip.AddrPort
	connected time.Time
	silentAt  time.Time // since when the peer does not answer
	answers   bool
	routed    bool
	silenced  bool
	held      bool
	downs     int
	steps     []string // what was done with the peer, in order
	routeErr  error
}

func (m *fakeMachine) Hold(context.Context, wgdev.PrivateKey) error {
	m.set(func() { m.held = true })
	return nil
}

func (m *fakeMachine) Connect(_ context.Context, cfg tunnel.Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg, m.connected, m.silenced = cfg, time.Now(), false
	m.connects = append(m.connects, cfg.Peer.Endpoint)
	m.steps = append(m.steps, "connect "+cfg.Peer.Endpoint.String())
	return nil
}

func (m *fakeMachine) Route(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.routeErr != nil {
		return m.routeErr
	}
	m.routed = true
	return nil
}

// Stats has a handshake during Connect and then every two minutes.
func (m *fakeMachine) Stats(context.Context) (tunnel.Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := time.Now()
	if !m.answers {
		until = m.silentAt
	}
	if !m.answers && !until.After(m.connected) || m.silenced || m.connected.IsZero() {
		return tunnel.Stats{}, nil
	}
	n := until.Sub(m.connected) / (120 * time.Second)
	return tunnel.Stats{LastHandshake: m.connected.Add(n * 120 * time.Second), RxBytes: 10, TxBytes: 20}, nil
}

func (m *fakeMachine) Silence(context.Context) error {
	m.set(func() { m.silenced = true; m.steps = append(m.steps, "silence") })
	return nil
}

func (m *fakeMachine) Down(context.Context) error {
	m.set(func() { m.downs++; m.routed = false })
	return nil
}

func (m *fakeMachine) Blocking() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.routed
}

func (m *fakeMachine) set(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

func (m *fakeMachine) silent() { m.set(func() { m.answers, m.silentAt = false, time.Now() }) }

// fakeNames knows every name, unless it is told to fail.
type fakeNames struct {
	mu  sync.Mutex
	err error
}

func (n *fakeNames) set(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

func (n *fakeNames) Lookup(context.Context, string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, nil
}

func (*fakeNames) Remembered() map[string][]netip.Addr { return nil }

// world is an agent with everything around it.
type world struct {
	t       *testing.T
	server  *fakeServer
	machine *fakeMachine
	names   *fakeNames
	store   *profile.Store
	agent   *agent.Agent
	ended   chan error
	cancel  context.CancelFunc // what a signal does
}

// inWorld runs fn in a bubble in which time is free, with a running agent of a
// device that is signed in.
func inWorld(t *testing.T, fn func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	key, err := wgdev.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		store := profile.New(profile.Location{Base: dir, Dir: "vpnd", UID: os.Geteuid(), GID: os.Getegid()})
		w := &world{
			t: t, store: store, ended: make(chan error, 1),
			server:  &fakeServer{store: store, key: key.Public().String(), refresh: "refresh-0", torEndpoint: "vpn.example.org:51821"},
			machine: &fakeMachine{answers: true},
			names:   &fakeNames{},
		}
		w.signIn(0)
		w.start()
		fn(w)
		_ = w.agent.Down(t.Context()) // it may have ended already
		<-w.ended
		w.cancel()
	})
}

func (w *world) start() {
	w.agent = agent.New(agent.Deps{Store: w.store, Server: w.server, Machine: w.machine, Names: w.names})
	ctx, cancel := context.WithCancel(w.t.Context())
	w.cancel = cancel
	go func() { w.ended <- w.agent.Run(ctx) }()
	synctest.Wait()
}

func (w *world) signIn(n int) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(p *profile.Profile, _ func() error) error {
		p.Server.Host, p.Server.Port = "vpn.example.org", 4605
		p.SetTokens(pair(n), time.Now())
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) up(lane profile.Lane) {
	w.t.Helper()
	if st, err := w.agent.Up(w.t.Context(), lane, "vpn0", time.Minute); err != nil || st.State != agentapi.Up {
		w.t.Fatalf("up: %+v, %v", st, err)
	}
	synctest.Wait()
}

// after lets time pass.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) want(state agentapi.State, reason string, blocking bool) agentapi.Status {
	w.t.Helper()
	st := w.agent.Status()
	if st.State != state || st.Reason != reason || st.Blocking != blocking {
		w.t.Fatalf("state %s (%s), blocking %v, message %q; want %s (%s), blocking %v", st.State, st.Reason, st.Blocking, st.Message, state, reason, blocking)
	}
	return st
}

func (w *world) profile() *profile.Profile {
	w.t.Helper()
	p, err := w.store.Load()
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}
