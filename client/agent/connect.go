package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
	"vpnd/pkg/fault"
)

// connect opens the session and configures the device. While nobody with a say
// answers it is tried again; a refusal is final.
func (a *Agent) connect(ctx context.Context) {
	err := a.initiate(ctx)
	if err == nil {
		a.tries = 0
		a.configure(ctx)
		return
	}
	if ctx.Err() != nil {
		return
	}
	if !gate.Unanswered(err) {
		a.fail(ctx, err)
		return
	}
	if a.adopt() {
		a.Log.Info("the server does not answer; using the session of before", "err", err)
		a.configure(ctx)
		return
	}
	wait := waitFor(err, a.tries)
	a.tries++
	a.nextTry = now().Add(wait)
	a.enter(agentapi.Connecting, "", fault.From(err).Message)
	a.Log.Info("opening the session failed", "err", err, "again_in", wait.Round(time.Millisecond))
}

// initiate asks the server for the session and keeps it durably.
func (a *Agent) initiate(ctx context.Context) error {
	access, err := a.accessToken(ctx)
	if err != nil {
		return err
	}
	err = a.Store.Update(ctx, func(p *profile.Profile, _ func() error) error {
		if err := p.EnsureKey(); err != nil {
			return err
		}
		a.key = p.Key
		return nil
	})
	if err != nil {
		return err
	}
	in, err := a.Server.Initiate(ctx, access, a.key.Public())
	if v, _ := judge(err); v == token {
		// The server does not accept a token that should be good: perhaps it has new keys.
		if access, err = a.renew(ctx, true); err != nil {
			return err
		}
		in, err = a.Server.Initiate(ctx, access, a.key.Public())
	}
	if err != nil {
		return err
	}
	s := &profile.Session{Initiated: in, PublicKey: a.key.Public(), OpenedAt: now()}
	if _, err := tunnel.ParseLane(s.In(a.lane)); err != nil {
		return fault.New(fault.Unimplemented, "%s", fault.From(err).Message).
			WithHint("the server may be newer than this client: install a newer vpn")
	}
	err = a.Store.Update(ctx, func(p *profile.Profile, _ func() error) error {
		p.Session, p.Lane, p.Addresses = s, a.lane, a.Names.Remembered()
		return nil
	})
	if err != nil {
		return err
	}
	a.take(s)
	a.Log.Info("session opened", "session", s.SessionID, "lane", a.lane)
	return nil
}

// adopt takes the session of an agent that died, while the server is away: its
// lanes work without it. The handshake will show whether the session still stands.
func (a *Agent) adopt() bool {
	p, err := a.Store.Load()
	if err != nil || p.Session == nil || p.Key.IsZero() || p.KeyOf != p.Device.ID ||
		p.Session.PublicKey != p.Key.Public() || !now().Before(p.Session.Expires()) {
		return false
	}
	if _, err := tunnel.ParseLane(p.Session.In(a.lane)); err != nil {
		return false
	}
	a.key = p.Key
	a.take(p.Session)
	return true
}

func (a *Agent) take(s *profile.Session) {
	a.session = s
	a.setTTL(s.HeartbeatTTL)
	a.nextBeat = now().Add(a.beatPause())
	a.nextEndpoint = time.Time{}
	a.endpoints = 0
}

func (a *Agent) setTTL(seconds int) {
	a.beatTTL = defaultBeat
	if seconds > 0 {
		a.beatTTL = time.Duration(seconds) * time.Second
	}
}

// configure tells the machine the session's lane. It is called again with the
// next of the server's addresses when there is no handshake.
func (a *Agent) configure(ctx context.Context) {
	err := a.tryConfigure(ctx)
	a.nextEndpoint = now().Add(jitter(endpointPatience, 0.2))
	if err == nil || ctx.Err() != nil {
		return
	}
	if errors.Is(err, fault.Unavailable) {
		a.message = fault.From(err).Message // a name that cannot be looked up now
		return
	}
	a.fail(ctx, err)
}

func (a *Agent) tryConfigure(ctx context.Context) error {
	lane, err := tunnel.ParseLane(a.session.In(a.lane))
	if err != nil {
		return err
	}
	a.conf = lane
	addrs, err := a.Names.Lookup(ctx, lane.Host)
	if err != nil {
		return err
	}
	a.endpoint = netip.AddrPortFrom(addrs[a.endpoints%len(addrs)], lane.Port)
	a.endpoints++
	cfg := tunnel.Config{
		Interface: a.iface, Key: a.key, Peer: lane.Peer,
		Addresses: lane.Addresses, MTU: lane.MTU, DNS: lane.DNS,
	}
	cfg.Peer.Endpoint = a.endpoint
	a.configured = now() // before, for the handshake may be done when Connect is
	ctx, cancel := local(ctx)
	defer cancel()
	if err := a.Machine.Connect(ctx, cfg); err != nil {
		return fmt.Errorf("set the tunnel up: %w", err)
	}
	a.Server.CloseIdle()
	if a.Machine.Blocking() {
		a.Server.Enter(lane.Control, lane.Addresses)
	}
	if a.state == agentapi.Connecting {
		a.message = "waiting for a handshake with " + a.endpoint.String()
	}
	return nil
}

// watch follows the handshakes: they, not heartbeats, tell whether the tunnel works.
func (a *Agent) watch(ctx context.Context) {
	stats, err := a.Machine.Stats(ctx)
	if err != nil {
		a.Log.Warn("reading the device", "err", err)
		return
	}
	a.stats = stats
	fresh := !stats.LastHandshake.Before(a.configured) && now().Sub(stats.LastHandshake) < handshakeLife
	switch {
	case fresh && a.state == agentapi.Connecting:
		a.arrive(ctx)
		return
	case fresh && a.state == agentapi.Stale:
		a.enter(agentapi.Up, "", "")
		a.answer(nil)
		return
	case !fresh && a.state == agentapi.Up && now().Sub(latest(stats.LastHandshake, a.configured)) >= handshakeLife:
		a.enter(agentapi.Stale, "", "the server has not answered for three minutes")
		a.nextBeat, a.nextEndpoint = now(), now() // around the tunnel it may tell why
	}
	if a.state != agentapi.Up && due(a.nextEndpoint) {
		if a.state == agentapi.Stale && a.hopeless() {
			a.closed("signed_out", fault.New(fault.Unauthenticated, "the server does not answer, and it refuses the sign-in"))
			return
		}
		if a.state == agentapi.Connecting && a.endpoints >= endpointRounds {
			// Perhaps the server has lost the session; asking again gives the same one.
			a.session = nil
			a.retryNow()
			return
		}
		a.configure(ctx)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// hopeless tells that the server neither answers in the tunnel nor accepts the
// tokens: only a new sign-in helps.
func (a *Agent) hopeless() bool {
	p, err := a.Store.Load()
	return err == nil && (!p.SignedIn() || p.Tokens.Refresh.Equal(a.refused) || !now().Before(p.Tokens.RefreshExpires))
}

// local is for changes of the machine: they take milliseconds, and half of one is
// worse than a moment's wait, so they are not interrupted.
func local(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
}

// arrive is the first handshake after a change.
func (a *Agent) arrive(ctx context.Context) {
	ctx, cancel := local(ctx)
	defer cancel()
	if err := a.Machine.Route(ctx); err != nil {
		a.fail(ctx, fmt.Errorf("lead traffic into the tunnel: %w", err))
		return
	}
	a.Server.Enter(a.conf.Control, a.conf.Addresses)
	a.nextReconcile = now().Add(reconcileEvery)
	a.enter(agentapi.Up, "", "")
	err := a.Store.Update(ctx, func(p *profile.Profile, _ func() error) error {
		p.Lane, p.Addresses = a.lane, a.Names.Remembered()
		return nil
	})
	if err != nil {
		a.Log.Warn("storing the profile", "err", err)
	}
	a.answer(nil)
}

// reconcile mends what other programs have undone: routes, rules, name servers.
func (a *Agent) reconcile(ctx context.Context) {
	if !a.Machine.Blocking() || !due(a.nextReconcile) {
		return
	}
	a.nextReconcile = now().Add(reconcileEvery)
	quick, cancel := local(ctx)
	defer cancel()
	if err := a.Machine.Route(quick); err != nil {
		a.Log.Warn("mending the routes", "err", err)
		if a.session != nil {
			a.configure(ctx) // the interface may be gone
		}
	}
}

// fail ends an attempt that cannot succeed. Before the tunnel was up, nothing of
// it stays; after, traffic stays blocked.
func (a *Agent) fail(ctx context.Context, err error) {
	a.Log.Error("cannot go on", "err", err)
	f := fault.From(err)
	if f.Code == fault.Internal && f.Message == "internal error" {
		// Nobody's secret here: what the system said.
		f = fault.New(fault.Unavailable, "%v", err).WithHint("the agent's log tells more")
	}
	if errors.Is(err, fault.Unauthenticated) && f.Hint == "" {
		f = f.WithHint("sign in again: vpn login")
	}
	if a.Machine.Blocking() || len(a.waiters) == 0 {
		a.closed(reasonOf(f), f)
		return
	}
	waiters := a.waiters
	a.waiters = nil
	if err := a.takeDown(ctx); err != nil {
		a.Log.Error("restoring the machine", "err", err)
	}
	for _, w := range waiters {
		w.reply <- reply{status: a.Status(), err: f}
	}
}

func reasonOf(f *fault.Error) string {
	if f.Reason != "" {
		return f.Reason
	}
	return string(f.Code)
}

// closed is the end of the session for as long as the user says nothing. Traffic
// stays blocked if it was.
func (a *Agent) closed(why string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	a.Server.Leave()
	if err := a.Machine.Silence(ctx); err != nil {
		a.Log.Warn("silencing the device", "err", err)
	}
	a.forgetSession(ctx)
	msg := explain(why, err)
	next := "'vpn up' to try again, 'vpn down' to leave"
	if signInHelps(why) {
		next = "'vpn login' and 'vpn up' to come back, 'vpn down' to leave"
	}
	if a.Machine.Blocking() {
		next = "traffic is blocked; " + next
	}
	a.enter(agentapi.Closed, why, msg+": "+next)
	f := fault.From(err)
	a.answer(fault.New(f.Code, "%s", msg).WithReason(why).WithHint("%s", next))
}
