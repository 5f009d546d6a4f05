package auth

import (
	"context"
	"errors"
	"time"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/events"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// Login signs a device in.
func (a *Auth) Login(ctx context.Context, req *authapi.LoginRequest) (*client.Tokens, error) {
	plain, err := a.keys.Open(ctx, req.Body.Sealed)
	if err != nil {
		if errors.Is(err, fault.Invalid) { // sealed wrongly: the client's to mend
			return nil, err
		}
		return nil, siblingFailed(err)
	}
	in, err := parseSignIn(plain)
	clear(plain)
	if err != nil {
		return nil, err
	}
	if err := a.fresh(in.issuedAt); err != nil {
		return nil, err
	}
	a.changing.Lock()
	began := a.count
	a.changing.Unlock()

	cred, err := a.users.Lookup(ctx, in.login)
	switch {
	case errors.Is(err, fault.NotFound), err == nil && cred.Status == usersapi.Deleting:
		cred = nil
	case err != nil:
		return nil, siblingFailed(err)
	}
	buckets, own := a.bucketsFor(cred, in, req.Body.Remote)
	t, first, err := a.guard.take(ctx, buckets...)
	if first { // and silent from then on: a flood must not wash the log away
		a.refused(ctx, cred, "throttled", req.Body.Remote)
	}
	if err != nil {
		return nil, err
	}
	right, err := a.judge(ctx, cred, in)
	if right || err != nil {
		t.giveBack()
	}
	t.settle()
	if err != nil {
		return nil, err
	}
	if !right {
		a.refused(ctx, cred, "invalid_credentials", req.Body.Remote)
		return nil, fault.New(fault.Unauthenticated, "the user name or the password is wrong").WithReason("invalid_credentials")
	}
	if own != "" {
		a.guard.forget(own)
	}
	if cred.Status != usersapi.Active {
		a.refused(ctx, cred, "suspended", req.Body.Remote)
		return nil, suspended()
	}
	tokens, err := a.signIn(ctx, cred, in, began, req.Body.Remote)
	if err != nil {
		if r := fault.ReasonOf(err); r != "" && !errors.Is(err, fault.Unavailable) {
			a.refused(ctx, cred, r, req.Body.Remote)
		}
		return nil, err
	}
	return tokens, nil
}

// judge tells whether the password is right, once for every nonce.
func (a *Auth) judge(ctx context.Context, cred *usersapi.Credentials, in signIn) (bool, error) {
	fresh, err := a.nonces.claim(in.nonce, in.issuedAt.Add(client.LoginWindow))
	if err != nil {
		return false, err
	}
	if !fresh {
		return false, replayed()
	}
	return a.verify(ctx, cred, in)
}

// fresh refuses a sign-in that was sealed too long ago, or by a clock that is
// wrong, and tells the right time.
func (a *Auth) fresh(issued time.Time) error {
	now := a.now()
	reason, what := "", ""
	switch age := now.Sub(issued); {
	case age > client.LoginWindow:
		reason, what = "expired", "old"
	case age < -client.LoginWindow:
		reason, what = "clock", "far in the future"
	default:
		return nil
	}
	return fault.New(fault.Unauthenticated, "the sign-in is too %s: it was made at %s and the server's clock says %s",
		what, issued.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
		WithReason(reason).WithHint("set this device's clock and try again")
}

func replayed() error {
	return fault.New(fault.Unauthenticated, "this sign-in was used before").WithReason("replayed").
		WithHint("seal a new one with a fresh nonce")
}

func suspended() error {
	return fault.New(fault.Denied, "the account is suspended").WithReason("suspended").WithHint("ask the operator")
}

// bucketsFor says what an attempt takes from. own is the bucket that only this
// device or this address of the account has, if there is one.
func (a *Auth) bucketsFor(cred *usersapi.Credentials, in signIn, remote string) (all []bucket, own bucket) {
	address := addressOf(remote)
	if cred == nil {
		return []bucket{globalBucket, addressBucket(address), strangerBucket(in.login)}, ""
	}
	for _, d := range a.devices.of(cred.ID) {
		switch {
		case d.deleting:
		case d.id == in.device: // ids are random and not shown to strangers
			return []bucket{deviceBucket(d.id)}, deviceBucket(d.id)
		case d.address == address:
			own = homeBucket(cred.ID, address)
		}
	}
	if own != "" {
		return []bucket{own}, own
	}
	return []bucket{globalBucket, addressBucket(address), accountBucket(cred.ID)}, ""
}

// verify costs one Argon2 computation whoever is asked for.
func (a *Auth) verify(ctx context.Context, cred *usersapi.Credentials, in signIn) (bool, error) {
	if cred == nil {
		return false, a.passwords.Dummy(ctx, in.password.Reveal())
	}
	return a.passwords.Verify(ctx, cred.PasswordHash, in.password.Reveal())
}

// refused tells of a refused sign-in. A login name that no account has is not
// told: people type passwords into the wrong field.
func (a *Auth) refused(ctx context.Context, cred *usersapi.Credentials, reason, remote string) {
	username := ""
	about := []any{"message", "sign-in refused", "reason", reason, "remote", remote, "request_id", rpc.RequestID(ctx)}
	if cred != nil {
		username = cred.Username
		about = append(about, "user", username)
	}
	a.publish(events.Event{Type: "auth.refused", User: username, Reason: reason, Data: map[string]string{"remote": remote}})
	a.log.WarnContext(ctx, "auth.refused", about...)
}
