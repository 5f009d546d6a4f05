package sessions

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"vpnd/pkg/api/client"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/store"
)

// Definition makes the service.
func Definition() service.Definition {
	return service.Definition{Name: "sessions", Build: build}
}

func build(ctx context.Context, env *service.Env) (service.Instance, error) {
	db, err := store.Open(ctx, store.Options{Path: filepath.Join(env.StateDir, "sessions.db"), Migrations: Migrations(), Log: env.Log})
	if err != nil {
		return service.Instance{}, err
	}
	m, err := New(ConfigFrom(env.Config), Deps{
		DB: db, Log: env.Log, Publish: env.Events.Publish,
		Siblings: remote{env.Sibling("users"), env.Sibling("auth"), env.Sibling("ipam"), env.Sibling("lanes"), env.Sibling("tor")},
	})
	if err == nil {
		err = m.Load(ctx)
	}
	if err != nil {
		_ = db.Close()
		return service.Instance{}, err
	}
	Register(env.Server, m)
	return service.Instance{Ready: m.Ready, Run: func(ctx context.Context) error {
		return errors.Join(m.Run(ctx), db.Close())
	}}, nil
}

// Register serves the operations.
func Register(s *rpc.Server, m *Manager) {
	rpc.Handle(s, api.Initiate, func(ctx context.Context, r *api.InitiateRequest) (*client.Initiated, error) {
		b := r.Body
		return m.Open(ctx, Request{User: b.User, Device: b.Device, PublicKey: b.PublicKey, Remote: b.Remote})
	})
	rpc.Handle(s, api.Heartbeat, func(ctx context.Context, r *api.BeatRequest) (*api.BeatReply, error) {
		out := &api.BeatReply{HeartbeatTTL: int(m.cfg.HeartbeatTTL / time.Second), Results: make([]api.BeatResult, len(r.Body.Beats))}
		for i, b := range r.Body.Beats {
			out.Results[i] = m.Beat(ctx, b)
		}
		return out, nil
	})
	rpc.Handle(s, api.Close, func(ctx context.Context, r *api.CloseRequest) (*api.ClosedReply, error) {
		switch b := r.Body; {
		case b.User != "" && b.Device != "":
			return nil, fault.InvalidField("body.device_id", "cannot be given together with user_id")
		case b.Device != "":
			closed, err := m.CloseDevice(ctx, b.Device, b.Reason, b.Forget)
			if err != nil || closed == nil {
				return &api.ClosedReply{}, err
			}
			return &api.ClosedReply{Closed: 1}, nil
		case b.User != "":
			n, err := m.CloseUser(ctx, b.User, b.Reason, b.Forget)
			return &api.ClosedReply{Closed: n}, err
		}
		return nil, fault.InvalidField("body.device_id", "device_id or user_id must be given")
	})
	rpc.Handle(s, api.List, func(_ context.Context, r *api.ListRequest) (*rpc.List[api.Session], error) { return m.List(*r) })
	rpc.Handle(s, api.History, func(ctx context.Context, r *api.HistoryRequest) (*rpc.List[api.Session], error) {
		return m.History(ctx, *r)
	})
	rpc.Handle(s, api.Get, func(ctx context.Context, r *api.Ref) (*api.Session, error) {
		found, err := m.Find(ctx, r.Session)
		return &found, err
	})
	rpc.Handle(s, api.Kill, func(ctx context.Context, r *api.Ref) (*api.Session, error) { return m.Kill(ctx, r.Session) })
	rpc.Handle(s, api.ReleaseLease, func(ctx context.Context, r *api.LeaseRef) (*rpc.None, error) {
		return nil, m.ReleaseLease(ctx, r.Device)
	})
	rpc.Handle(s, api.GetOwner, func(_ context.Context, r *api.OwnerRequest) (*api.Owner, error) { return m.Owner(r.Address) })
	rpc.Handle(s, api.GetLanes, func(ctx context.Context, r *api.LanesRequest) (*client.LaneStates, error) {
		return m.LaneStates(ctx, r.User, r.Device)
	})
	rpc.Handle(s, api.GetOverview, func(context.Context, *struct{}) (*api.Overview, error) {
		o := m.Overview()
		return &o, nil
	})
}
