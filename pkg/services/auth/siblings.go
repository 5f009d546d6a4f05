package auth

import (
	"context"
	"errors"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// Keys opens sign-ins and signs access tokens.
type Keys interface {
	Open(ctx context.Context, sealed client.Sealed) ([]byte, error)
	Sign(ctx context.Context, user id.User, device id.Device, ttl time.Duration) (string, error)
	Ready(ctx context.Context) error
}

// Users knows the accounts.
type Users interface {
	Lookup(ctx context.Context, login string) (*usersapi.Credentials, error)
	Standing(ctx context.Context, ref string) (*usersapi.Account, error)
	Seen(ctx context.Context, user id.User, at time.Time) error
}

// Sessions closes a device's session and returns after its peer is gone.
type Sessions interface {
	Close(ctx context.Context, device id.Device, reason sessions.Reason, forget bool) error
}

// Passwords verifies; each call costs one Argon2 computation.
type Passwords interface {
	Verify(ctx context.Context, hash, password string) (bool, error)
	// Dummy takes as long as Verify, for accounts that do not exist.
	Dummy(ctx context.Context, password string) error
}

type remoteKeys struct{ conn *rpc.Conn }

func (k remoteKeys) Open(ctx context.Context, sealed client.Sealed) ([]byte, error) {
	req := &keysapi.OpenRequest{}
	req.Body.KID, req.Body.Enc, req.Body.Ciphertext = sealed.KID, sealed.Enc, sealed.Ciphertext
	got, err := keysapi.Open.Call(ctx, k.conn, req)
	if err != nil {
		return nil, err
	}
	return got.Plaintext, nil
}

func (k remoteKeys) Sign(ctx context.Context, user id.User, device id.Device, ttl time.Duration) (string, error) {
	req := &keysapi.SignRequest{}
	req.Body.User, req.Body.Device, req.Body.TTL = user, device, int(ttl/time.Second)
	got, err := keysapi.Sign.Call(ctx, k.conn, req)
	if err != nil {
		return "", err
	}
	return got.Token, nil
}

func (k remoteKeys) Ready(ctx context.Context) error {
	_, err := keysapi.Login.Call(ctx, k.conn, nil)
	return err
}

type remoteUsers struct{ conn *rpc.Conn }

func (u remoteUsers) Lookup(ctx context.Context, login string) (*usersapi.Credentials, error) {
	req := &usersapi.LookupRequest{}
	req.Body.Login = login
	return usersapi.Lookup.Call(ctx, u.conn, req)
}

func (u remoteUsers) Standing(ctx context.Context, ref string) (*usersapi.Account, error) {
	return usersapi.Standing.Call(ctx, u.conn, &usersapi.Ref{User: ref})
}

func (u remoteUsers) Seen(ctx context.Context, user id.User, at time.Time) error {
	req := &usersapi.SeenRequest{Ref: usersapi.Ref{User: string(user)}}
	req.Body.LoginAt = at
	_, err := usersapi.Seen.Call(ctx, u.conn, req)
	return err
}

type remoteSessions struct{ conn *rpc.Conn }

func (s remoteSessions) Close(ctx context.Context, device id.Device, reason sessions.Reason, forget bool) error {
	req := &sessions.CloseRequest{}
	req.Body.Device, req.Body.Reason, req.Body.Forget = device, reason, forget
	_, err := sessions.Close.Call(ctx, s.conn, req)
	return err
}

// siblingFailed passes on that a sibling cannot answer now. Any other refusal
// is a mistake between services, which the client neither made nor can mend.
func siblingFailed(err error) error {
	for _, code := range []fault.Code{fault.Unavailable, fault.Timeout, fault.Throttled, fault.Canceled} {
		if errors.Is(err, code) {
			return err
		}
	}
	return fault.Wrap(err, fault.Internal, "a sibling refused")
}
