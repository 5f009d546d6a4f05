// Package gateway is the service that faces the internet: the client API over
// TLS. It can touch no key, no kernel state and no database: tokens are checked
// with public keys, handshakes are signed and sign-ins opened by others, and
// everything else is a call to a sibling.
//
// It owns the public listeners, the limits on connections and the meaning of
// bearer tokens. A Gateway may be used concurrently.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/build"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
)

// Gateway answers the client API.
type Gateway struct {
	log      *slog.Logger
	keys     *rpc.Conn
	auth     *rpc.Conn
	sessions *rpc.Conn
	tokens   *verifier
	cert     *certificate
	beats    *beats

	mu     sync.Mutex
	pubkey *keys.LoginKeys
	asked  time.Time // when pubkey was fetched
}

// Definition makes the service.
func Definition() service.Definition {
	return service.Definition{Name: "gateway", Build: buildService}
}

func buildService(_ context.Context, env *service.Env) (service.Instance, error) {
	if len(env.Extra) == 0 {
		return service.Instance{}, errors.New("no public listener was inherited")
	}
	g := New(Deps{Keys: env.Sibling("keys"), Auth: env.Sibling("auth"), Sessions: env.Sibling("sessions"), Log: env.Log})
	limit := newLimiter(env.Config.Gateway.MaxConnections)
	public := g.Server(limit)
	return service.Instance{Ready: g.Ready, Run: func(ctx context.Context) error {
		go g.refresh(ctx)
		go g.beats.run(ctx)
		return public.Serve(ctx, env.Extra...)
	}}, nil
}

// Deps are the siblings a Gateway calls.
type Deps struct {
	Keys, Auth, Sessions *rpc.Conn
	Log                  *slog.Logger
}

// New prepares a Gateway; Server serves it, after refresh has found the keys.
func New(d Deps) *Gateway {
	return &Gateway{
		log: d.Log, keys: d.Keys, auth: d.Auth, sessions: d.Sessions,
		tokens: newVerifier(d.Keys), cert: newCertificate(d.Keys), beats: newBeats(d.Sessions),
	}
}

// Server makes the public server.
func (g *Gateway) Server(limit *limiter) *rpc.Server {
	s := rpc.NewServer(rpc.ServerConfig{
		Name: "vpnd client API", Version: build.Get().Version, Log: g.log, Guard: g.guard,
		WriteTimeout: 90 * time.Second, // a sign-in may wait for its turn at Argon2
		TLS:          &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: g.cert.get},
		ConnState:    limit.observe,
	})
	rpc.Handle(s, client.GetHealth, g.health)
	rpc.Handle(s, client.GetPubkey, g.loginKeys)
	rpc.Handle(s, client.PostLogin, g.login)
	rpc.Handle(s, client.PostReauth, g.reauth)
	rpc.Handle(s, client.PostLogout, g.logout)
	rpc.Handle(s, client.PostInitiate, g.initiate)
	rpc.Handle(s, client.PostHeartbeat, g.heartbeat)
	rpc.Handle(s, client.PostClose, g.close)
	rpc.Handle(s, client.PostVerify, g.verify)
	return s
}

// Ready tells whether sign-ins and tokens can be judged.
func (g *Gateway) Ready() error {
	if err := g.cert.ready(); err != nil {
		return err
	}
	return g.tokens.ready()
}

// refresh keeps what keys publishes: quickly until it is there, then now and
// then.
func (g *Gateway) refresh(ctx context.Context) {
	for {
		wait := time.Minute
		if err := errors.Join(g.cert.refresh(ctx), g.tokens.refresh(ctx)); err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = 50 * time.Millisecond
			if g.Ready() == nil { // what we have goes on working
				wait = 5 * time.Second
			}
			g.log.Debug("keys_not_read", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (g *Gateway) notReady() error {
	return fault.New(fault.Unavailable, "the server is starting").WithReason("keys_not_ready").WithRetryAfter(time.Second)
}

func (g *Gateway) health(ctx context.Context, _ *struct{}) (*client.Health, error) {
	if g.Ready() != nil {
		return nil, g.notReady()
	}
	st, err := keys.Login.Call(ctx, g.keys, nil)
	if err != nil || len(st.Keys) == 0 {
		return nil, g.notReady()
	}
	return &client.Health{Status: "ok", Version: build.Get().Version}, nil
}

// loginKeysFor is how long published login keys are repeated without asking.
const loginKeysFor = 5 * time.Second

func (g *Gateway) loginKeys(ctx context.Context, _ *struct{}) (*keys.LoginKeys, error) {
	g.mu.Lock()
	have, asked := g.pubkey, g.asked
	g.mu.Unlock()
	if have != nil && time.Since(asked) < loginKeysFor {
		return have, nil
	}
	k, err := keys.Login.Call(ctx, g.keys, nil)
	if err != nil {
		return nil, err
	}
	if len(k.Keys) == 0 {
		return nil, g.notReady()
	}
	g.mu.Lock()
	g.pubkey, g.asked = k, time.Now()
	g.mu.Unlock()
	return k, nil
}

func (g *Gateway) login(ctx context.Context, r *client.LoginRequest) (*client.Tokens, error) {
	req := &auth.LoginRequest{}
	req.Body.Sealed, req.Body.Remote = r.Body, remote(ctx)
	return auth.Login.Call(ctx, g.auth, req)
}

func (g *Gateway) reauth(ctx context.Context, r *client.RefreshRequest) (*client.Tokens, error) {
	return auth.Reauth.Call(ctx, g.auth, refreshRequest(ctx, r))
}

func (g *Gateway) logout(ctx context.Context, r *client.RefreshRequest) (*rpc.None, error) {
	return auth.Logout.Call(ctx, g.auth, refreshRequest(ctx, r))
}

func refreshRequest(ctx context.Context, r *client.RefreshRequest) *auth.RefreshRequest {
	req := &auth.RefreshRequest{}
	req.Body.RefreshToken, req.Body.Remote = r.Body.RefreshToken, remote(ctx)
	return req
}

func (g *Gateway) initiate(ctx context.Context, r *client.InitiateRequest) (*client.Initiated, error) {
	who := bearer(ctx)
	req := &sessions.InitiateRequest{}
	req.Body.User, req.Body.Device = who.UserID, who.DeviceID
	req.Body.PublicKey, req.Body.Remote = r.Body.PublicKey, remote(ctx)
	return sessions.Initiate.Call(ctx, g.sessions, req)
}

func (g *Gateway) heartbeat(ctx context.Context, _ *struct{}) (*client.Beat, error) {
	who := bearer(ctx)
	res, ttl, err := g.beats.send(ctx, sessions.BeatItem{User: who.UserID, Device: who.DeviceID, Remote: remote(ctx)})
	if err != nil {
		return nil, err
	}
	if res.Refused != "" {
		return nil, refusedBeat(res)
	}
	return &client.Beat{State: string(res.State), Recovered: res.Recovered, HeartbeatTTL: ttl}, nil
}

// refusedBeat says why a heartbeat found no session, in the words that decide
// what the client does next: go away, sign in, or connect again.
func refusedBeat(r sessions.BeatResult) error {
	switch r.Why {
	case sessions.UserSuspended:
		return fault.New(fault.Denied, "the account is suspended").WithReason("suspended")
	case sessions.UserDeleted, sessions.DeviceDeleted:
		return fault.New(fault.Unauthenticated, "the account or device was deleted").WithReason(string(r.Why))
	case sessions.LoggedOut, sessions.TokenReuse:
		return fault.New(fault.Unauthenticated, "the device is signed out").WithReason("signed_out").WithHint("sign in again")
	}
	f := fault.New(fault.Conflict, "the session is closed").WithReason(r.Refused).WithHint("connect again")
	if r.Why != "" {
		f.Message += " (" + string(r.Why) + ")"
	}
	return f
}

func (g *Gateway) close(ctx context.Context, _ *struct{}) (*rpc.None, error) {
	req := &sessions.CloseRequest{}
	req.Body.Device, req.Body.Reason = bearer(ctx).DeviceID, sessions.ByUser
	_, err := sessions.Close.Call(ctx, g.sessions, req)
	return nil, err
}

func (g *Gateway) verify(ctx context.Context, _ *struct{}) (*client.Identity, error) {
	who := bearer(ctx)
	return &who, nil
}

// remote is the client's address without its port.
func remote(ctx context.Context) string {
	ap, err := netip.ParseAddrPort(rpc.CallerFrom(ctx).Remote)
	if err != nil {
		host, _, _ := net.SplitHostPort(rpc.CallerFrom(ctx).Remote)
		return host
	}
	return ap.Addr().Unmap().WithZone("").String()
}

type bearerKey struct{}

func bearer(ctx context.Context) client.Identity {
	who, _ := ctx.Value(bearerKey{}).(client.Identity)
	return who
}

// guard admits bearers of a valid access token to the operations that ask for
// one. Whether the account may still do things is for sessions to say.
func (g *Gateway) guard(ctx context.Context, op rpc.Info, r rpc.Request) (context.Context, error) {
	if op.Access != rpc.Bearer {
		return ctx, nil
	}
	who, err := g.tokens.verify(ctx, r.Header("Authorization"))
	if err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, bearerKey{}, who), nil
}

func identity(user, device string) client.Identity {
	return client.Identity{UserID: id.User(user), DeviceID: id.Device(device)}
}
