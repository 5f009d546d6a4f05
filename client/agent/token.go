package agent

import (
	"context"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
)

// renewAt is the part of an access token's life after which it is renewed.
const renewAt = 0.8

// renewTimeout bounds a renewal together with the two writes around it.
const renewTimeout = 30 * time.Second

// errUncertain is a refresh token that may be spent: its renewal was sent and no
// answer came. Sent again it would, if it is spent, close the session, so that is
// only done when there is no session to lose.
var errUncertain = fault.New(fault.Timeout, "the latest renewal of the sign-in was not answered").
	WithReason("renewal_uncertain").WithHint("the tunnel goes on without it; to renew it now: vpn login")

func notSignedIn() *fault.Error {
	return fault.New(fault.Unauthenticated, "nobody is signed in").WithReason("not_signed_in").WithHint("sign in first: vpn login URL")
}

// accessToken gives a token that has not expired. It is called where there is no
// session to lose.
func (a *Agent) accessToken(ctx context.Context) (secret.Text, error) {
	p, err := a.Store.Load()
	if err != nil {
		return secret.Text{}, err
	}
	a.showToken(p, nil)
	if !p.SignedIn() {
		return secret.Text{}, notSignedIn()
	}
	if now().Before(p.Tokens.AccessExpires) {
		return p.Tokens.Access, nil
	}
	return a.renew(ctx, true)
}

// renew trades the refresh token for a new pair, which is on disk before it is
// used: a refresh token works once. The store's lock makes this the only renewal
// of the machine. risk allows sending a token that may be spent already.
func (a *Agent) renew(ctx context.Context, risk bool) (secret.Text, error) {
	// Not interrupted: a token that was sent and not answered is as good as lost.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
	defer cancel()
	before, err := a.Store.Load()
	if err != nil {
		return secret.Text{}, err
	}
	var access secret.Text
	var shown *profile.Profile
	err = a.Store.Update(ctx, func(p *profile.Profile, save func() error) error {
		shown = p
		t := &p.Tokens
		switch {
		case !p.SignedIn():
			return notSignedIn()
		case !t.Access.Equal(before.Tokens.Access):
			access = t.Access // somebody signed in meanwhile
			return nil
		case t.Refresh.Equal(a.refused):
			return fault.New(fault.Unauthenticated, "the server refuses the sign-in").WithHint("sign in again: vpn login")
		case !now().Before(t.RefreshExpires):
			return fault.New(fault.Unauthenticated, "the sign-in has expired").WithHint("sign in again: vpn login")
		case t.RenewalSent && !risk:
			return errUncertain
		}
		uncertain := t.RenewalSent
		t.RenewalSent = true
		if err := save(); err != nil {
			return err
		}
		got, sent, err := a.Server.Renew(ctx, t.Refresh)
		if err == nil {
			p.SetTokens(got, now())
			access = p.Tokens.Access
			return nil
		}
		if !sent {
			// A refusal is certain again; what was never sent changed nothing.
			t.RenewalSent = uncertain && gate.Unanswered(err)
			if err := save(); err != nil {
				return err
			}
		}
		if !gate.Unanswered(err) {
			a.refused = t.Refresh
		}
		return err
	})
	a.showToken(shown, err)
	a.tokenErr = err
	if err != nil {
		a.Log.Warn("renewing the tokens", "err", err)
		return secret.Text{}, err
	}
	a.renewTries, a.nextRenew = 0, time.Time{}
	return access, nil
}

// renewEarly renews before the access token expires. A failure is nobody's
// business but the status line's.
func (a *Agent) renewEarly(ctx context.Context) {
	if !due(a.nextRenew) {
		return
	}
	p, err := a.Store.Load()
	if err != nil || !p.SignedIn() {
		a.showToken(p, err)
		a.nextRenew = now().Add(longestWait)
		return
	}
	t := p.Tokens
	// With a server that has been silent for minutes there is nothing to lose.
	risk := a.state == agentapi.Stale
	if t.RenewalSent && !risk || t.Refresh.Equal(a.refused) {
		// Waiting for a new sign-in.
		a.showToken(p, nil)
		a.nextRenew = now().Add(longestWait)
		return
	}
	life := t.AccessExpires.Sub(t.AccessIssued)
	at := t.AccessIssued.Add(time.Duration(float64(life) * renewAt))
	if now().Before(at) {
		a.showToken(p, nil)
		a.nextRenew = at.Add(jitter(life/40, 1))
		// A sign-in by hand is noticed within a minute.
		if soon := now().Add(longestWait); a.nextRenew.After(soon) {
			a.nextRenew = soon
		}
		return
	}
	if _, err := a.renew(ctx, risk); err != nil {
		a.nextRenew = now().Add(waitFor(err, a.renewTries))
		a.renewTries++
		return
	}
	if a.beat.State == "failing" {
		a.nextBeat = now()
	}
}

func (a *Agent) showToken(p *profile.Profile, err error) {
	if p == nil || !p.SignedIn() {
		a.token = agentapi.Token{State: "none"}
		return
	}
	t := p.Tokens
	a.token = agentapi.Token{State: "valid", AccessExpires: &t.AccessExpires, RefreshExpires: &t.RefreshExpires}
	switch {
	case t.Refresh.Equal(a.refused) || !now().Before(t.RefreshExpires):
		a.token.State = "refused"
	case t.RenewalSent:
		a.token.State = "uncertain"
	case !now().Before(t.AccessExpires):
		a.token.State = "expired"
	}
	if err != nil {
		a.token.Error = fault.From(err).Message
	}
}
