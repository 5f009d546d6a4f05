package auth

import (
	"context"
	"errors"
	"log/slog"
	"time"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// Why a family does not work any more; also the reason clients are told.
const (
	signedOut     = "signed_out"
	reuseDetected = "reuse_detected"
	deviceDeleted = "device_deleted"
)

// Reasons why a call may be repeated.
const (
	reasonPending = "pending" // done here, not by sessions yet
	reasonChanged = "changed" // the account was changed in between
)

// family is a row of families.
type family struct {
	device  id.Device
	sealKey []byte
	current []byte
	expires time.Time
	revoked string

	traded   []byte // hash of the token that current was traded for
	tradedBy string // the request that did it
}

// readFamily finds the family a token was issued in; ErrNoRows if there is
// none, also for a token that was tampered with.
func readFamily(q store.Querier, t refreshToken) (family, error) {
	var f family
	err := q.QueryRow(`SELECT device_id, seal_key, current, expires_at, revoked, traded, traded_by FROM families WHERE selector = ?`, t.lookup()).
		Scan(&f.device, &f.sealKey, &f.current, &f.expires, &f.revoked, &f.traded, &f.tradedBy)
	if err == nil && !t.sealedBy(f.sealKey) {
		return family{}, store.ErrNoRows
	}
	return f, err
}

// errSpent is a token that was issued here and has been traded before.
var errSpent = errors.New("the token is spent")

// usable tells why a token cannot be traded. The same request may trade a
// token again: that is the gateway, whose connection broke before it had the
// answer, so nobody has the successor. Clients cannot choose request ids.
func (f family) usable(t refreshToken, request string, now time.Time) error {
	switch {
	case f.revoked != "":
		return revokedError(f.revoked)
	case !now.Before(f.expires):
		return fault.New(fault.Unauthenticated, "the refresh token has expired").WithReason("expired").WithHint("sign in again")
	case !t.is(f.current) && !(request != "" && request == f.tradedBy && t.is(f.traded)):
		return errSpent
	}
	return nil
}

func revokedError(why string) error {
	what := "this device was signed out"
	switch why {
	case reuseDetected:
		what = "a refresh token was used twice, so this device was signed out"
	case deviceDeleted:
		what = "this device was deleted"
	}
	return fault.New(fault.Unauthenticated, "%s", what).WithReason(why).WithHint("sign in again")
}

func invalidToken() error {
	return fault.New(fault.Unauthenticated, "the refresh token is not valid").WithReason("invalid_token").WithHint("sign in again")
}

// Reauth trades a refresh token for a new pair. A token that was traded before
// closes the family and the device's session: one of the two who hold it is
// not the device.
func (a *Auth) Reauth(ctx context.Context, req *authapi.RefreshRequest) (*client.Tokens, error) {
	token, ok := parseToken(req.Body.RefreshToken)
	if !ok {
		return nil, invalidToken()
	}
	var f family
	err := a.db.Read(ctx, func(q store.Querier) (err error) {
		f, err = readFamily(q, token)
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil, invalidToken()
	}
	if err != nil {
		return nil, err
	}
	d, ok := a.devices.get(f.device)
	if !ok {
		return nil, invalidToken() // deleted this very moment
	}
	if err := f.usable(token, rpc.RequestID(ctx), a.now()); errors.Is(err, errSpent) {
		return nil, a.reuse(ctx, token, req.Body.Remote)
	} else if err != nil {
		return nil, err
	}
	acc, err := a.users.Standing(ctx, string(d.user))
	switch {
	case errors.Is(err, fault.NotFound), err == nil && acc.Status == usersapi.Deleting:
		return nil, fault.New(fault.Unauthenticated, "the account does not exist any more").WithReason("account_deleted")
	case err != nil:
		return nil, siblingFailed(err)
	case acc.Status != usersapi.Active:
		return nil, suspended()
	}
	access, err := a.keys.Sign(ctx, d.user, d.id, a.cfg.AccessTTL.D())
	if err != nil {
		return nil, siblingFailed(err)
	}
	tokens, err := a.rotate(ctx, token, access, acc)
	if errors.Is(err, errSpent) { // somebody else was faster with the same token
		return nil, a.reuse(ctx, token, req.Body.Remote)
	}
	return tokens, err
}

// rotate spends the token, if it still can be, and issues its successor.
func (a *Auth) rotate(ctx context.Context, token refreshToken, access string, acc *usersapi.Account) (*client.Tokens, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	var d device
	var next refreshToken
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		f, err := readFamily(tx, token)
		if errors.Is(err, store.ErrNoRows) {
			return invalidToken()
		}
		if err != nil {
			return err
		}
		if err := f.usable(token, rpc.RequestID(ctx), a.now()); err != nil {
			return err
		}
		d, _ = a.devices.get(f.device) // there is a row, and changing is held
		d.username, d.lastSeen, d.expires = acc.Username, a.stamp(), a.stamp().Add(a.cfg.RefreshTTL.D())
		next = newToken(token.selector(), f.sealKey)
		if _, err := tx.Exec(`UPDATE families SET current = ?, issued_at = ?, expires_at = ?, traded = ?, traded_by = ? WHERE device_id = ?`,
			next.hash(), d.lastSeen, d.expires, token.hash(), rpc.RequestID(ctx), d.id); err != nil {
			return err
		}
		return writeDevice(tx, d)
	})
	if err != nil {
		return nil, err
	}
	a.devices.put(d)
	return a.pair(access, next, d, client.TokenUser{ID: acc.ID, Username: acc.Username, Email: acc.Email}), nil
}

// reuse closes the family of a spent token and the device's session. The
// answer does not depend on whether the session could be closed already.
func (a *Auth) reuse(ctx context.Context, token refreshToken, remote string) error {
	d, t, changed, err := a.revoke(ctx, token, reuseDetected, sessions.TokenReuse)
	if errors.Is(err, store.ErrNoRows) {
		return invalidToken()
	}
	if err != nil {
		return err
	}
	if changed {
		a.announce(ctx, slog.LevelWarn, "auth.token_reuse", d, remote, reuseDetected)
	}
	if t.id != 0 {
		_ = a.attempt(ctx, t, shortPatience) // logged, and retried by Run
	}
	return revokedError(reuseDetected)
}

// Logout ends the family and closes the device's session; the device stays. A
// sign-out that is repeated waits for what the first could not finish.
func (a *Auth) Logout(ctx context.Context, req *authapi.RefreshRequest) (*rpc.None, error) {
	token, ok := parseToken(req.Body.RefreshToken)
	if !ok {
		return nil, invalidToken()
	}
	d, t, changed, err := a.revoke(ctx, token, signedOut, sessions.LoggedOut)
	if errors.Is(err, store.ErrNoRows) {
		return nil, invalidToken()
	}
	if err != nil {
		return nil, err
	}
	if changed {
		a.announce(ctx, slog.LevelInfo, "auth.logout", d, req.Body.Remote, "")
	}
	if t.id != 0 {
		if err := a.attempt(ctx, t, shortPatience); err != nil {
			return nil, pending(err, "the device is signed out, but its session could not be closed yet")
		}
	}
	return &rpc.None{}, nil
}

// revoke ends the family of a token and plans the closing of the session. When
// the family had ended before it gives the task that is left, if any.
func (a *Auth) revoke(ctx context.Context, token refreshToken, why string, reason sessions.Reason) (d device, t task, changed bool, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		f, err := readFamily(tx, token)
		if err != nil {
			return err
		}
		d, _ = a.devices.get(f.device) // there is a row, and changing is held
		if f.revoked != "" {
			t, err = findTask(tx, f.device)
			return err
		}
		if _, err := tx.Exec(`UPDATE families SET revoked = ? WHERE device_id = ?`, why, f.device); err != nil {
			return err
		}
		changed = true
		t, err = plan(tx, f.device, reason, a.now())
		return err
	})
	if err == nil && changed {
		d.revoked = why
		a.devices.put(d)
	}
	return d, t, changed, err
}
