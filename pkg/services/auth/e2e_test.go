package auth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func plain(user string, device client.LoginDevice) client.Login {
	var n [16]byte
	_, _ = rand.Read(n[:])
	return client.Login{
		Login: user, Password: "password of " + user, Device: device, IssuedAt: time.Now(),
		Nonce: base64.StdEncoding.EncodeToString(n[:]),
	}
}

func closing(user id.User, device id.Device, reason sessions.Reason, forget bool) sessions.CloseRequest {
	var r sessions.CloseRequest
	r.Body.User, r.Body.Device, r.Body.Reason, r.Body.Forget = user, device, reason, forget
	return r
}

// The whole life of an account, over real sockets between real processes.
func TestLifeOfAnAccount(t *testing.T) {
	s := newSystem(t)
	s.startAll(t)
	ctx := t.Context()
	control, gateway := s.as(t, "control", "users"), s.as(t, "gateway", "auth")
	devices := s.as(t, "control", "auth")
	alice := s.create(t, "alice")
	login, err := keysapi.Login.Call(ctx, s.as(t, "gateway", "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}

	// Sign in, with each of the keys.
	var tokens *client.Tokens
	for i, k := range login.Keys {
		in := plain("alice", client.LoginDevice{Name: "laptop", OS: "linux"})
		if i > 0 {
			in.Login, in.Device.ID = "Alice@Example.org", tokens.DeviceID
		}
		if tokens, err = s.login(t, gateway, k, in); err != nil {
			t.Fatal(err)
		}
	}
	if tokens.User != (client.TokenUser{ID: alice.ID, Username: "alice", Email: "alice@example.org"}) {
		t.Errorf("user %+v", tokens.User)
	}
	verifiers, err := keysapi.Verifiers.Call(ctx, s.as(t, "gateway", "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(tokens.AccessToken, claims, func(tok *jwt.Token) (any, error) {
		if tok.Header["kid"] != verifiers.Keys[0].KID {
			return nil, errors.New("unknown kid")
		}
		return ed25519.PublicKey(verifiers.Keys[0].PublicKey), nil
	}, jwt.WithAudience("vpnd"), jwt.WithIssuer("vpnd"), jwt.WithExpirationRequired()); err != nil {
		t.Error(err)
	}
	if claims["sub"] != string(alice.ID) || claims["device_id"] != string(tokens.DeviceID) {
		t.Errorf("claims %v", claims)
	}
	eventually(t, "users has noted the sign-in", func() bool {
		got, err := usersapi.Get.Call(ctx, control, &usersapi.Ref{User: "alice"})
		return err == nil && got.LastLoginAt != nil
	})

	// Renew.
	first := tokens.RefreshToken
	if tokens, err = authapi.Reauth.Call(ctx, gateway, refresh(first)); err != nil {
		t.Fatal(err)
	}

	// Suspend: sessions closed, renewal and sign-in refused; activate undoes it.
	s.closes()
	if _, err := usersapi.Suspend.Call(ctx, control, &usersapi.Ref{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]sessions.CloseRequest{closing(alice.ID, "", sessions.UserSuspended, false)}, s.closes()); diff != "" {
		t.Error(diff)
	}
	_, err = authapi.Reauth.Call(ctx, gateway, refresh(tokens.RefreshToken))
	wantFault(t, "renewal", err, fault.Denied, "suspended")
	_, err = s.login(t, gateway, login.Keys[0], plain("alice", client.LoginDevice{ID: tokens.DeviceID, Name: "laptop", OS: "linux"}))
	wantFault(t, "sign-in", err, fault.Denied, "suspended")
	if _, err := usersapi.Activate.Call(ctx, control, &usersapi.Ref{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	if tokens, err = authapi.Reauth.Call(ctx, gateway, refresh(tokens.RefreshToken)); err != nil {
		t.Fatal(err)
	}

	// A new password ends the sign-ins.
	pw := &usersapi.PasswordRequest{Ref: usersapi.Ref{User: "alice"}}
	pw.Body.Password = "another password"
	if _, err := usersapi.SetPassword.Call(ctx, control, pw); err != nil {
		t.Fatal(err)
	}
	_, err = authapi.Reauth.Call(ctx, gateway, refresh(tokens.RefreshToken))
	wantFault(t, "renewal", err, fault.Unauthenticated, "signed_out")
	in := plain("alice", client.LoginDevice{ID: tokens.DeviceID, Name: "laptop", OS: "linux"})
	_, err = s.login(t, gateway, login.Keys[0], in)
	wantFault(t, "old password", err, fault.Unauthenticated, "invalid_credentials")
	in = plain("alice", client.LoginDevice{ID: tokens.DeviceID, Name: "laptop", OS: "linux"})
	in.Password = "another password"
	if tokens, err = s.login(t, gateway, login.Keys[0], in); err != nil {
		t.Fatal(err)
	}

	// A spent token closes the session.
	s.closes()
	if _, err := authapi.Reauth.Call(ctx, gateway, refresh(tokens.RefreshToken)); err != nil {
		t.Fatal(err)
	}
	_, err = authapi.Reauth.Call(ctx, gateway, refresh(tokens.RefreshToken))
	wantFault(t, "spent token", err, fault.Unauthenticated, "reuse_detected")
	if diff := cmp.Diff([]sessions.CloseRequest{closing("", tokens.DeviceID, sessions.TokenReuse, false)}, s.closes()); diff != "" {
		t.Error(diff)
	}

	// A renamed account, and deletion of all of it.
	rename := &usersapi.SetRequest{Ref: usersapi.Ref{User: "alice"}}
	rename.Body.Username = new("carol")
	if _, err := usersapi.Set.Call(ctx, control, rename); err != nil {
		t.Fatal(err)
	}
	dev, err := authapi.DeviceGet.Call(ctx, devices, &authapi.DeviceRef{Device: "carol/laptop"})
	if err != nil || dev.Username != "carol" || dev.ID != tokens.DeviceID {
		t.Errorf("device %+v, %v", dev, err)
	}
	if _, err := usersapi.Delete.Call(ctx, control, &usersapi.Ref{User: "carol"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]sessions.CloseRequest{closing(alice.ID, "", sessions.UserDeleted, true)}, s.closes()); diff != "" {
		t.Error(diff)
	}
	list, err := authapi.DeviceList.Call(ctx, devices, &authapi.DeviceListRequest{Limit: 10})
	if err != nil || list.Total != 0 {
		t.Errorf("devices %+v, %v", list, err)
	}
	_, err = s.login(t, gateway, login.Keys[0], in)
	if !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("sign-in of a deleted user: %v", err)
	}
	s.create(t, "carol")
}

func TestWhoMayCallWhat(t *testing.T) {
	s := newSystem(t)
	s.startAll(t)
	sign := &keysapi.SignRequest{}
	sign.Body.User, sign.Body.Device, sign.Body.TTL = "usr_a", "dev_a", 60
	lookup := &usersapi.LookupRequest{}
	for name, err := range map[string]error{
		"gateway signs a token":   second(keysapi.Sign.Call(t.Context(), s.as(t, "gateway", "keys"), sign)),
		"gateway opens a sign-in": second(keysapi.Open.Call(t.Context(), s.as(t, "gateway", "keys"), &keysapi.OpenRequest{})),
		"control looks up a hash": second(usersapi.Lookup.Call(t.Context(), s.as(t, "control", "users"), lookup)),
		"gateway reaches users":   second(usersapi.Get.Call(t.Context(), s.as(t, "gateway", "users"), &usersapi.Ref{User: "a"})),
		"gateway forgets a user":  second(authapi.ForgetUser.Call(t.Context(), s.as(t, "gateway", "auth"), &authapi.UserRef{User: "usr_a"})),
		"control signs in":        second(authapi.Reauth.Call(t.Context(), s.as(t, "control", "auth"), refresh("vpr_x"))),
	} {
		if !errors.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// kill -9 between the commit and what siblings must do: the next process does it.
func TestAKilledProcessFinishesWhatItHasPromised(t *testing.T) {
	s := newSystem(t)
	s.startAll(t)
	ctx := t.Context()
	alice := s.create(t, "alice")
	gateway := s.as(t, "gateway", "auth")
	login, err := keysapi.Login.Call(ctx, s.as(t, "gateway", "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := s.login(t, gateway, login.Keys[0], plain("alice", client.LoginDevice{Name: "laptop", OS: "linux"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, victim string
		do           func(context.Context) error
		want         sessions.CloseRequest
		then         func() bool
	}{
		{"logout", "auth", func(ctx context.Context) error {
			return second(authapi.Logout.Call(ctx, s.as(t, "gateway", "auth"), refresh(tokens.RefreshToken)))
		}, closing("", tokens.DeviceID, sessions.LoggedOut, false), func() bool {
			_, err := authapi.Reauth.Call(ctx, gateway, refresh(tokens.RefreshToken))
			return fault.ReasonOf(err) == "signed_out"
		}},
		{"device delete", "auth", func(ctx context.Context) error {
			return second(authapi.DeviceDelete.Call(ctx, s.as(t, "control", "auth"), &authapi.DeviceRef{Device: string(tokens.DeviceID)}))
		}, closing("", tokens.DeviceID, sessions.DeviceDeleted, true), func() bool {
			_, err := authapi.DeviceGet.Call(ctx, s.as(t, "control", "auth"), &authapi.DeviceRef{Device: string(tokens.DeviceID)})
			return errors.Is(err, fault.NotFound)
		}},
		{"suspend", "users", func(ctx context.Context) error {
			return second(usersapi.Suspend.Call(ctx, s.as(t, "control", "users"), &usersapi.Ref{User: "alice"}))
		}, closing(alice.ID, "", sessions.UserSuspended, false), func() bool {
			got, err := usersapi.Get.Call(ctx, s.as(t, "control", "users"), &usersapi.Ref{User: "alice"})
			return err == nil && got.Status == usersapi.Suspended
		}},
		{"delete", "users", func(ctx context.Context) error {
			return second(usersapi.Delete.Call(ctx, s.as(t, "control", "users"), &usersapi.Ref{User: "alice"}))
		}, closing(alice.ID, "", sessions.UserDeleted, true), func() bool {
			_, err := usersapi.Get.Call(ctx, s.as(t, "control", "users"), &usersapi.Ref{User: "alice"})
			return errors.Is(err, fault.NotFound)
		}},
	} {
		s.closes()
		block := make(chan struct{})
		s.mu.Lock()
		s.block = block
		s.mu.Unlock()
		callCtx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); _ = tc.do(callCtx) }()
		eventually(t, tc.name+": sessions is asked", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.closed) > 0 })
		s.kill(tc.victim)
		cancel()
		<-done
		s.mu.Lock()
		s.block = nil
		s.mu.Unlock()
		close(block)
		s.closes()
		s.start(t, tc.victim)
		eventually(t, tc.name+": sessions is asked again", func() bool {
			for _, c := range s.closes() {
				if c == tc.want {
					return true
				}
			}
			return false
		})
		eventually(t, tc.name+": it is finished", tc.then)
	}
}

// Processes die at any moment while devices sign in and renew. What was
// acknowledged stays true: a token that a client holds and has never sent
// works, and no device is lost.
func TestNoAcknowledgedSignInIsLost(t *testing.T) {
	s := newSystem(t)
	s.startAll(t)
	for i := range 4 {
		s.create(t, fmt.Sprintf("user%d", i))
	}
	login, err := keysapi.Login.Call(t.Context(), s.as(t, "gateway", "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var renewed atomic.Int64
	for i := range 4 {
		conn := s.as(t, "gateway", "auth")
		wg.Go(func() { s.signInAndRenew(t, ctx, conn, login.Keys[i%2], fmt.Sprintf("user%d", i), &renewed) })
	}
	names := []string{"auth", "users", "keys", "auth"}
	for i := range 24 {
		goal := renewed.Load() + mathrand.Int64N(8)
		eventually(t, "clients get on", func() bool { return renewed.Load() >= goal })
		name := names[i%len(names)]
		s.kill(name)
		s.start(t, name)
	}
	cancel()
	wg.Wait()
	list, err := authapi.DeviceList.Call(t.Context(), s.as(t, "control", "auth"), &authapi.DeviceListRequest{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Items {
		if !d.SignedIn {
			t.Errorf("%s/%s is signed out", d.Username, d.Name)
		}
	}
}

// signInAndRenew is one client. A call that failed may or may not have
// happened, so after it the client signs in again, with the same device.
func (s *system) signInAndRenew(t *testing.T, ctx context.Context, conn *rpc.Conn, k keysapi.LoginKey, user string, renewed *atomic.Int64) {
	device := client.LoginDevice{Name: "laptop", OS: "linux"}
	for {
		var tokens *client.Tokens
		for tokens == nil {
			got, err := s.login(t, conn, k, plain(user, device))
			switch {
			case err == nil:
				tokens = got
			case ctx.Err() != nil:
				return // nothing is held that could be lost
			case !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.Exhausted):
				t.Errorf("%s: sign-in: %v", user, err)
				return
			}
		}
		if device.ID != "" && tokens.DeviceID != device.ID {
			t.Errorf("%s: device %s became %s", user, device.ID, tokens.DeviceID)
		}
		device.ID = tokens.DeviceID
		for {
			if ctx.Err() != nil {
				return
			}
			next, err := authapi.Reauth.Call(t.Context(), conn, refresh(tokens.RefreshToken))
			if err != nil {
				if !errors.Is(err, fault.Unavailable) {
					t.Errorf("%s: a token that was never used before: %v", user, err)
				}
				break
			}
			tokens = next
			renewed.Add(1)
		}
	}
}
