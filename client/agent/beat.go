package agent

import (
	"cmp"
	"context"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// beatPause is the time to the next heartbeat: about two in the time the server
// waits for one.
func (a *Agent) beatPause() time.Duration { return jitter(a.beatTTL/2, 0.1) }

// heartbeat tells the server that this device is there. Only the server's own
// word that the session is over has consequences.
func (a *Agent) heartbeat(ctx context.Context) {
	answer, way, err := a.sendBeat(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		t := now()
		if a.beat.State == "failing" {
			a.Log.Info("heartbeat is well again", "way", way, "recovered", answer.Recovered)
		}
		a.beat = agentapi.Heartbeat{State: "ok", Way: string(way), LastOK: &t}
		a.setTTL(answer.HeartbeatTTL)
		a.beatTries = 0
		a.nextBeat = t.Add(a.beatPause())
		return
	}
	v, why := judge(err)
	if v == reopen || v == ended && why == reasonClosed && !now().Before(a.session.Expires().Add(-longestWait)) {
		a.Log.Info("the session is gone; opening a new one", "reason", why)
		a.Server.Leave() // nobody answers in there
		a.forgetSession(ctx)
		a.retryNow()
		a.enter(agentapi.Connecting, why, "opening the session again")
		return
	}
	if v == ended {
		a.Log.Warn("the server ended the session", "reason", why, "err", err)
		a.closed(why, err)
		return
	}
	if a.beat.State != "failing" {
		a.Log.Warn("heartbeat failed", "way", way, "err", err)
	}
	a.beat.State, a.beat.Error = "failing", fault.From(err).Message
	a.nextBeat = now().Add(min(waitFor(err, a.beatTries), a.beatTTL/2))
	a.beatTries++
}

// errExpired is an access token that is to be renewed soon.
var errExpired error = fault.New(fault.Timeout, "the access token has expired")

// sendBeat renews the access token once when the server does not accept it.
func (a *Agent) sendBeat(ctx context.Context) (client.Beat, gate.Way, error) {
	p, err := a.Store.Load()
	if err != nil {
		return client.Beat{}, "", err
	}
	access := p.Tokens.Access
	if !p.SignedIn() {
		return client.Beat{}, "", fault.New(fault.Timeout, "nobody is signed in any more")
	}
	if !now().Before(p.Tokens.AccessExpires) {
		// Renewing it has a pace of its own.
		return client.Beat{}, "", unsure(cmp.Or(a.tokenErr, errExpired))
	}
	answer, way, err := a.Server.Heartbeat(ctx, access)
	if v, _ := judge(err); v != token {
		return answer, way, err
	}
	if access, err = a.renew(ctx, a.state == agentapi.Stale); err != nil {
		return client.Beat{}, way, unsure(err)
	}
	answer, way, err = a.Server.Heartbeat(ctx, access)
	if v, _ := judge(err); v == token {
		err = unsure(err)
	}
	return answer, way, err
}

// unsure makes a refused token what it is for the tunnel: no news of the session.
// Only reasons with which the server closes the session too are kept.
func unsure(err error) error {
	switch sessions.Reason(fault.ReasonOf(err)) {
	case sessions.TokenReuse, "reuse_detected", sessions.UserSuspended, "suspended",
		sessions.UserDeleted, "account_deleted", sessions.DeviceDeleted:
		return err
	}
	return fault.Wrap(err, fault.Timeout, "%s", fault.From(err).Message)
}
