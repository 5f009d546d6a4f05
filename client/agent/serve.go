package agent

import (
	"context"
	"log/slog"
	"time"

	"vpnd/client/agentapi"
	"vpnd/pkg/build"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// NewServer offers the agent to its owner and to root.
func NewServer(a *Agent, owner uint32, log *slog.Logger) *rpc.Server {
	s := rpc.NewServer(rpc.ServerConfig{
		Name: "vpn agent", Version: build.Get().Version, Log: log,
		Identify: func(p rpc.PeerCred) (rpc.Caller, error) {
			if p.UID != 0 && p.UID != owner {
				return rpc.Caller{}, fault.New(fault.Denied, "the tunnel of this machine belongs to user %d", owner).
					WithHint("ask them, or root, to take it down: sudo vpn down")
			}
			return rpc.Caller{Name: "user", Access: rpc.Admin}, nil
		},
	})
	rpc.Handle(s, agentapi.GetStatus, func(ctx context.Context, r *agentapi.StatusRequest) (*agentapi.Status, error) {
		st := a.Status()
		if r.Check {
			st = a.Check(ctx)
		}
		return &st, nil
	})
	rpc.Handle(s, agentapi.PostUp, func(ctx context.Context, r *agentapi.UpRequest) (*agentapi.Status, error) {
		b := r.Body
		if !b.Wait {
			st, err := a.Begin(ctx, b.Lane, b.Interface)
			return &st, err
		}
		st, err := a.Up(ctx, b.Lane, b.Interface, patience(b.Patience))
		if err != nil {
			return nil, err
		}
		return &st, nil
	})
	rpc.Handle(s, agentapi.PostLane, func(ctx context.Context, r *agentapi.SwitchRequest) (*agentapi.Status, error) {
		st, err := a.Switch(ctx, r.Body.Lane, patience(r.Body.Patience))
		if err != nil {
			return nil, err
		}
		return &st, nil
	})
	rpc.Handle(s, agentapi.PostDown, func(ctx context.Context, _ *struct{}) (*rpc.None, error) {
		return nil, a.Down(ctx)
	})
	rpc.HandleStream(s, agentapi.WatchStatus, func(ctx context.Context, _ *struct{}, send func(agentapi.Status) error) error {
		return a.Watch(ctx, send)
	})
	return s
}

func patience(seconds int) time.Duration {
	if seconds == 0 {
		return defaultPatience
	}
	return time.Duration(seconds) * time.Second
}
