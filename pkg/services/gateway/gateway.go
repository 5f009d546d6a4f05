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
	auth     *rpc.Conn
	sessions *rpc.Conn
	tokens   *verifier
	cert     *certificate
	login    *loginKeys
	beats    *beats
	limit    *limiter
	public   *rpc.Server
}

// Definition makes the service.
func Definition() service.Definition {
	return service.Definition{Name: "gateway", Build: buildService}
}

func buildService(_ context.Context, env *service.Env) (service.Instance, error) {
	if len(env.Extra) == 0 {
		return service.Instance{}, errors.New("no public listener was inherited")
	}
	g := New(Config{MaxConnections: env.Config.Gateway.MaxConnections}, Deps{
		Keys: env.Sibling("keys"), Auth: env.Sibling("auth"), Sessions: env.Sibling("sessions"), Log: env.Log,
	})
	return service.Instance{Ready: g.Ready, Run: func(ctx context.Context) error { return g.Run(ctx, env.Extra...) }}, nil
}

// Config is what a Gateway needs to know.
type Config struct {
	MaxConnections int // held at once
}

// Deps are the siblings a Gateway calls.
type Deps struct {
	Keys, Auth, Sessions *rpc.Conn
	Log                  *slog.Logger
}

// answerWithin bounds an answer: a sign-in may wait for its turn at Argon2.
const answerWithin = 90 * time.Second

// New prepares a Gateway; Run serves it.
func New(cfg Config, d Deps) *Gateway {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		log: d.Log, auth: d.Auth, sessions: d.Sessions, tokens: newVerifier(d.Keys), cert: newCertificate(d.Keys),
		login: newLoginKeys(d.Keys), beats: newBeats(d.Sessions), limit: newLimiter(cfg.MaxConnections),
	}
	s := rpc.NewServer(rpc.ServerConfig{
		Name: "vpnd client API", Version: build.Get().Version, Log: d.Log, Guard: g.guard, Around: g.around,
		WriteTimeout: answerWithin,
		TLS:          &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: g.cert.get},
		ConnState:    g.limit.observe,
	})
	g.public = s
	rpc.Handle(s, client.GetHealth, g.health)
	rpc.Handle(s, client.GetPubkey, func(ctx context.Context, _ *struct{}) (*keys.LoginKeys, error) { return g.login.get(ctx) })
	rpc.Handle(s, client.PostLogin, g.signIn)
	rpc.Handle(s, client.PostReauth, g.reauth)
	rpc.Handle(s, client.PostLogout, g.logout)
	rpc.Handle(s, client.PostInitiate, g.initiate)
	rpc.Handle(s, client.PostHeartbeat, g.heartbeat)
	rpc.Handle(s, client.PostClose, g.close)
	rpc.Handle(s, client.PostVerify, g.verify)
	rpc.Handle(s, client.GetLaneStates, g.laneStates)
	return g
}

// Run serves the listeners until ctx ends. It owns every goroutine.
func (g *Gateway) Run(ctx context.Context, listeners ...net.Listener) error {
	// What answers calls works until the last of them is answered.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { g.refresh(work) })
	all.Go(func() { g.beats.run(work) })
	err := g.public.Serve(ctx, listeners...)
	stop()
	all.Wait()
	g.limit.wait()
	return err
}

// around gives errors of siblings the status that clients are promised: one
// that does not answer in time is unavailable, like one that is not there.
func (g *Gateway) around(ctx context.Context, op rpc.Info, _ any, next func(context.Context) error) error {
	began := time.Now()
	err := next(ctx)
	if err == nil {
		g.answered(ctx, op, time.Since(began))
	}
	if f := fault.From(err); err != nil && f.Code == fault.Timeout {
		return fault.Wrap(err, fault.Unavailable, "%s", f.Message).WithReason(f.Reason).WithRetryAfter(max(f.RetryAfter, time.Second))
	}
	return err
}

// answered logs what a client has achieved. Refusals are for those to log who
// refuse: they know the user, and how to stay silent in a flood.
func (g *Gateway) answered(ctx context.Context, op rpc.Info, took time.Duration) {
	switch op.ID {
	case client.PostLogin.ID, client.PostLogout.ID, client.PostInitiate.ID, client.PostClose.ID:
	default:
		return
	}
	about := []any{"op", op.ID, "dur_ms", took.Milliseconds(), "request_id", rpc.RequestID(ctx)}
	if device := bearer(ctx).DeviceID; device != "" {
		about = append(about, "device_id", device)
	}
	g.log.InfoContext(ctx, "client.answered", about...)
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
			g.log.Debug("keys.not_read", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (g *Gateway) health(ctx context.Context, _ *struct{}) (*client.Health, error) {
	if g.Ready() != nil {
		return nil, notReady(nil)
	}
	if _, err := g.login.get(ctx); err != nil {
		return nil, notReady(err)
	}
	return &client.Health{Status: "ok", Version: build.Get().Version}, nil
}

func (g *Gateway) signIn(ctx context.Context, r *client.LoginRequest) (*client.Tokens, error) {
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

func (g *Gateway) laneStates(ctx context.Context, _ *struct{}) (*client.LaneStates, error) {
	who := bearer(ctx)
	return sessions.GetLanes.Call(ctx, g.sessions, &sessions.LanesRequest{User: who.UserID, Device: who.DeviceID})
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
