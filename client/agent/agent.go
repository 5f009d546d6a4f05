package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
	"vpnd/pkg/wgdev"
)

// Server is the VPN server as the agent needs it.
type Server interface {
	Initiate(ctx context.Context, access secret.Text, key wgdev.Key) (client.Initiated, error)
	Heartbeat(ctx context.Context, access secret.Text) (client.Beat, gate.Way, error)
	// Renew tells in sent whether a failed renewal may have spent the token.
	Renew(ctx context.Context, refresh secret.Text) (t client.Tokens, sent bool, err error)
	LaneStates(ctx context.Context, access secret.Text) (client.LaneStates, error)
	Close(ctx context.Context, access secret.Text) error
	// Enter and Leave say whether calls may go through the tunnel.
	Enter(control netip.AddrPort, from []netip.Prefix)
	Leave()
	CloseIdle()
}

// Machine is this machine as the agent needs it.
type Machine interface {
	// Hold takes over what a dead agent blocked.
	Hold(ctx context.Context, key wgdev.PrivateKey) error
	Connect(ctx context.Context, cfg tunnel.Config) error
	Route(ctx context.Context) error
	Stats(ctx context.Context) (tunnel.Stats, error)
	Silence(ctx context.Context) error
	Down(ctx context.Context) error
	Blocking() bool
}

// Names looks up host names around the tunnel.
type Names interface {
	Lookup(ctx context.Context, host string) ([]netip.Addr, error)
	Remembered() map[string][]netip.Addr
}

// Deps are what an Agent works with.
type Deps struct {
	Store   *profile.Store
	Server  Server
	Machine Machine
	Names   Names
	Log     *slog.Logger

	// ServerName is the client API's host and port, for people.
	ServerName string
}

// The agent's pace.
const (
	// handshakeLife is the age up to which a handshake proves that the tunnel
	// works: WireGuard makes a new one every two minutes and refuses keys older
	// than three (REJECT_AFTER_TIME of the WireGuard paper, 6.2).
	handshakeLife = 180 * time.Second

	pollConnecting   = 200 * time.Millisecond
	pollUp           = 2 * time.Second
	reconcileEvery   = 30 * time.Second
	endpointPatience = 15 * time.Second // without a handshake, before the next address is tried
	endpointRounds   = 3                // so many times, before the session is asked for again
	idlePatience     = 10 * time.Second // without a wish, before the agent ends
	closeTimeout     = 4 * time.Second
	downTimeout      = 15 * time.Second
	defaultBeat      = 90 * time.Second
	defaultPatience  = 30 * time.Second
)

// Agent is the agent. Make it with New; Run does the work.
type Agent struct {
	Deps
	board    *board
	requests chan request
	calls    interrupter
	watchers atomic.Int32 // who follow the status

	// What follows is Run's alone.

	state   agentapi.State
	reason  string
	message string
	since   time.Time
	began   time.Time // when the first tunnel was wanted; the counters are as old
	ended   bool

	lane    profile.Lane
	iface   string
	session *profile.Session
	conf    tunnel.Lane
	key     wgdev.PrivateKey
	waiters []request

	endpoint   netip.AddrPort
	endpoints  int       // how many were tried
	configured time.Time // when the device was last told what to be
	stats      tunnel.Stats

	nextTry, nextBeat, nextReconcile, nextEndpoint, nextRenew time.Time
	tries, beatTries, renewTries                              int

	beat     agentapi.Heartbeat
	beatTTL  time.Duration
	token    agentapi.Token
	tokenErr error // of the latest renewal

	laneState  *client.LaneState // the server's word of this lane; nil before it was asked
	lanesAsked time.Time
	refused    secret.Text // the refresh token that the server refused
}

// New makes an Agent that wants nothing yet.
func New(d Deps) *Agent {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{
		Deps: d, board: newBoard(), requests: make(chan request),
		state: agentapi.Down, since: now(),
		beat: agentapi.Heartbeat{State: "none"}, token: agentapi.Token{State: "none"},
		beatTTL: defaultBeat,
	}
}

// now is the wall clock: what is waited for here goes on while the machine sleeps.
func now() time.Time { return time.Now().Round(0) }

// Run keeps the tunnel until somebody says down or ctx ends, and restores the
// machine; or until it is clear that nobody wants one, and changes nothing.
func (a *Agent) Run(ctx context.Context) error {
	defer close(a.board.ended)
	if a.Machine.Blocking() {
		a.enter(agentapi.Crashed, "", "an earlier agent died; traffic is blocked")
	}
	a.publish()
	timer := time.NewTimer(pollConnecting)
	defer timer.Stop()
	for !a.ended {
		select {
		case <-ctx.Done():
			return a.takeDown(context.WithoutCancel(ctx))
		case r := <-a.requests:
			a.handle(ctx, r)
		case <-timer.C:
		}
		if !a.ended {
			a.leaveWithCallers(ctx)
		}
		if !a.ended {
			one, end := a.calls.begin(ctx)
			a.step(one)
			end()
		}
		a.publish()
		timer.Reset(a.pace())
	}
	return nil
}

func (a *Agent) pace() time.Duration {
	if a.state == agentapi.Connecting {
		return pollConnecting
	}
	return pollUp
}

// step does what is due.
func (a *Agent) step(ctx context.Context) {
	switch a.state {
	case agentapi.Down, agentapi.Crashed:
		if now().Sub(a.since) > idlePatience {
			// A dead agent's blocking is not undone by one that nobody wanted.
			a.ended = true
		}
		return
	case agentapi.Closed:
		a.reconcile(ctx)
		return
	}
	if a.session == nil {
		if due(a.nextTry) {
			a.connect(ctx)
		}
		return
	}
	a.watch(ctx)
	if a.session == nil || a.state == agentapi.Closed || a.state == agentapi.Down {
		return
	}
	a.reconcile(ctx)
	a.renewEarly(ctx)
	if due(a.nextBeat) && (a.state != agentapi.Connecting || a.Machine.Blocking()) {
		a.heartbeat(ctx)
	}
	if a.watchers.Load() > 0 {
		a.askLanes(ctx, lanesLife)
	}
}

func due(t time.Time) bool { return !now().Before(t) }

// leaveWithCallers gives up a tunnel that never was up when nobody waits for it
// any more.
func (a *Agent) leaveWithCallers(ctx context.Context) {
	var left, kept []request
	for _, w := range a.waiters {
		if w.ctx.Err() == nil {
			kept = append(kept, w)
		} else {
			left = append(left, w)
		}
	}
	a.waiters = kept
	if len(left) == 0 {
		return
	}
	late := a.late(left[0].patience)
	if len(kept) == 0 && a.state == agentapi.Connecting && !a.Machine.Blocking() {
		a.Log.Info("nobody waits any more")
		_ = a.takeDown(ctx) // logged there
	}
	for _, w := range left {
		w.reply <- reply{status: a.Status(), err: late} // if they have not gone away
	}
}

// late says how far it has got in vain.
func (a *Agent) late(patience time.Duration) error {
	f := fault.New(fault.Timeout, "the tunnel is not up after %s: %s", patience, a.message)
	switch {
	case a.Machine.Blocking():
		return f.WithReason("not_up").WithHint("it is still being tried, and traffic is blocked: 'vpn status' to see how it goes, 'vpn down' to leave")
	case a.session == nil:
		return f.WithReason("no_answer").WithHint("nothing was changed; check that the server runs and try again")
	}
	return f.WithReason("no_handshake").WithHint("nothing was changed; perhaps the network does not let UDP to %s through", a.endpoint)
}

// handle takes a wish.
func (a *Agent) handle(ctx context.Context, r request) {
	if r.down {
		r.reply <- reply{err: a.takeDown(ctx)}
		return
	}
	a.confirm(ctx)
	if r.check {
		a.checkLanes(ctx)
		a.publish()
		r.reply <- reply{status: a.Status()}
		return
	}
	if r.live && !a.live() {
		r.reply <- reply{err: a.notUp(r.lane)}
		return
	}
	p, err := a.Store.Load()
	if err == nil && !p.SignedIn() {
		err = notSignedIn()
	}
	lane := r.lane
	if err == nil && lane == "" {
		lane = p.PreferredLane()
	}
	if err == nil && a.session != nil {
		_, err = tunnel.ParseLane(a.session.In(lane)) // before the lane of now is given up
	}
	if err != nil {
		r.reply <- reply{err: err}
		return
	}
	if a.session == nil {
		a.key = p.Key
	}
	a.wish(ctx, lane, r.iface)
	switch {
	case !r.wait:
		a.publish()
		r.reply <- reply{status: a.Status()}
	case a.state == agentapi.Up:
		a.publish()
		r.reply <- reply{status: a.Status()}
	default:
		a.waiters = append(a.waiters, r)
	}
}

// wish begins, resumes or changes the tunnel.
func (a *Agent) wish(ctx context.Context, lane profile.Lane, iface string) {
	if a.iface == "" {
		a.iface = iface
	}
	switch a.state {
	case agentapi.Down, agentapi.Crashed, agentapi.Closed:
		if a.state == agentapi.Crashed {
			if err := a.Machine.Hold(ctx, a.key); err != nil {
				a.Log.Warn("taking over from a dead agent", "err", err)
			}
		}
		a.lane, a.session, a.refused = lane, nil, secret.Text{}
		a.tries, a.renewTries = 0, 0
		a.retryNow()
		a.enter(agentapi.Connecting, "", "opening the session")
		return
	case agentapi.Stale:
		a.nextEndpoint, a.nextBeat = now(), now()
	case agentapi.Connecting:
		a.retryNow()
	}
	if lane == a.lane {
		return
	}
	a.Log.Info("changing lane", "from", a.lane, "to", lane)
	a.lane = lane
	if a.session == nil {
		return
	}
	a.changeLane(ctx)
}

func (a *Agent) retryNow() {
	a.nextTry, a.nextBeat, a.nextRenew = time.Time{}, time.Time{}, time.Time{}
}

// takeDown ends everything. It is what down, a signal and a failed start share.
func (a *Agent) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
	defer cancel()
	a.closeSession(ctx)
	a.Server.Leave()
	err := a.Machine.Down(ctx)
	if err != nil {
		a.Log.Error("restoring the machine", "err", err)
	}
	a.enter(agentapi.Down, "", "")
	a.answer(fault.New(fault.Canceled, "the tunnel was taken down"))
	a.ended = true
	a.publish()
	return err
}

// closeSession tells the server, when it can be told quickly.
func (a *Agent) closeSession(ctx context.Context) {
	p, err := a.Store.Load()
	if a.session == nil || err != nil || !now().Before(p.Tokens.AccessExpires) {
		return
	}
	if a.state != agentapi.Up {
		a.Server.Leave()
	}
	short, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := a.Server.Close(short, p.Tokens.Access); err != nil {
		a.Log.Info("the session could not be closed at the server; it will go offline", "err", err)
	}
	a.forgetSession(ctx)
}

func (a *Agent) forgetSession(ctx context.Context) {
	a.session = nil
	err := a.Store.Update(ctx, func(p *profile.Profile, _ func() error) error {
		p.Session = nil
		return nil
	})
	if err != nil {
		a.Log.Warn("storing the profile", "err", err)
	}
}

// enter changes the state.
func (a *Agent) enter(s agentapi.State, reason, message string) {
	if s != a.state {
		a.Log.Info("state", "from", a.state, "to", s, "reason", reason)
		a.since = now()
		if a.began.IsZero() {
			a.began = a.since
		}
	}
	a.state, a.reason, a.message = s, reason, message
}

// answer tells those who wait for the tunnel how it went.
func (a *Agent) answer(err error) {
	a.publish()
	for _, w := range a.waiters {
		w.reply <- reply{status: a.Status(), err: err}
	}
	a.waiters = nil
}

func (a *Agent) publish() {
	s := agentapi.Status{
		State: a.state, Reason: a.reason, Message: a.message, Since: a.since, Began: a.began,
		Blocking: a.Machine.Blocking(), Lane: a.lane, Interface: a.iface, Server: a.ServerName,
		RxBytes: a.stats.RxBytes, TxBytes: a.stats.TxBytes, Heartbeat: a.beat, Token: a.token, PID: os.Getpid(),
	}
	if a.session != nil {
		s.SessionID = a.session.SessionID
		s.Addresses, s.DNS = a.conf.Addresses, a.conf.DNS
		s.LaneState = a.knownLaneState()
	}
	if a.endpoint.IsValid() {
		s.Endpoint = a.endpoint.String()
	}
	if !a.stats.LastHandshake.IsZero() {
		t := a.stats.LastHandshake
		s.LastHandshake = &t
	}
	a.board.set(s)
}
