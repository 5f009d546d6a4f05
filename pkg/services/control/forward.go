//go:build linux

package control

import (
	"context"
	"errors"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// forwarding is one operation of another service that is offered here.
type forwarding struct {
	rpc.Info
	service  string
	register func(*rpc.Server, *rpc.Conn)
}

// forwarded is every operation that control offers for another service.
func (c *control) forwarded() []forwarding {
	return []forwarding{
		forward("supervisor", supervisor.List),
		forward("supervisor", supervisor.Get),
		forward("supervisor", supervisor.Start),
		c.forwardToSelf(supervisor.Stop),
		c.forwardToSelf(supervisor.Restart),
		forward("supervisor", supervisor.Reload),

		forward("keys", keys.Status),
		forward("keys", keys.TLSCertificate),

		forward("users", users.ListUsers),
		forward("users", users.Get),
		forwardNamed("users", users.Create, func(u *users.User) string { return u.Username }),
		forward("users", users.Set),
		forward("users", users.SetPassword),
		forward("users", users.Suspend),
		forward("users", users.Activate),
		forward("users", users.Delete),

		forward("auth", auth.DeviceList),
		forward("auth", auth.DeviceGet),
		forward("auth", auth.DeviceDelete),

		forward("ipam", ipam.Status),
		forward("ipam", ipam.Leases),

		forward("sessions", sessions.List),
		forward("sessions", sessions.Get),
		forward("sessions", sessions.Kill),
		forward("sessions", sessions.History),
		forward("sessions", sessions.ReleaseLease),
		forward("sessions", sessions.GetOverview),

		forward("lanes", lanes.List),
		forward("lanes", lanes.Switch),

		forward("tor", tor.GetStatus),
		forward("tor", tor.SetWish),
		forward("tor", tor.Start),
		forward("tor", tor.Stop),
		forward("tor", tor.ListCircuits),
		forward("tor", tor.GetCircuit),
		forward("tor", tor.CloseCircuit),
		forward("tor", tor.ListStreams),
		forward("tor", tor.NewID),
		forward("tor", tor.ListExits),
		forward("tor", tor.SetExit),
		forward("tor", tor.ClearExit),
		forward("tor", tor.ListRelays),
		forward("tor", tor.ListBridges),
		forward("tor", tor.AddBridge),
		forward("tor", tor.RemoveBridge),
		forward("tor", tor.TestBridge),
		forward("tor", tor.UseBridges),
		forward("tor", tor.SetIsolation),
		forward("tor", tor.ListOnions),
		forward("tor", tor.RunCheck),

		forward("canary", canary.Run),
		forward("canary", canary.Last),

		forward("logs", logs.Query),
		forward("logs", logs.Count),
		forward("logs", logs.Stats),
		forward("logs", logs.Top),
		forward("logs", logs.Histogram),
		forward("logs", logs.Fields),
		forward("logs", logs.Services),
		forwardStream("logs", logs.Follow),
		forwardStream("logs", logs.Export),
		forward("logs", logs.ListSaved),
		forward("logs", logs.Save),
		forward("logs", logs.RunSaved),
		forward("logs", logs.DeleteSaved),
		forward("logs", logs.Purge),
		forward("logs", logs.GetStatus),
	}
}

func forward[Req, Resp any](service string, op rpc.Op[Req, Resp]) forwarding {
	return forwarding{op.Info, service, func(s *rpc.Server, conn *rpc.Conn) { rpc.Forward(s, op, conn) }}
}

// forwardStream passes a stream on, one event after the other: a reader that is
// slow here makes the service behind wait, which does with it what it says. A
// stream that ends ends here too; one that breaks does so with an error.
func forwardStream[Req, Event any](service string, op rpc.Stream[Req, Event]) forwarding {
	return forwarding{op.Info, service, func(s *rpc.Server, conn *rpc.Conn) {
		rpc.HandleStream(s, op, func(ctx context.Context, req *Req, send func(Event) error) error {
			if err := op.Follow(ctx, conn, req, send); !errors.Is(err, rpc.ErrEnded) {
				return err
			}
			return nil
		})
	}}
}

// forwardNamed is forward for operations whose path does not say what they
// concern: the audit trail learns it from the answer.
func forwardNamed[Req, Resp any](service string, op rpc.Op[Req, Resp], target func(*Resp) string) forwarding {
	return forwarding{op.Info, service, func(s *rpc.Server, conn *rpc.Conn) {
		rpc.Handle(s, op, func(ctx context.Context, req *Req) (*Resp, error) {
			resp, err := op.Call(ctx, conn, req)
			if err == nil {
				noteTarget(ctx, target(resp))
			}
			return resp, err
		})
	}}
}

// forwardToSelf is for stopping and restarting services: this one has to
// answer before it is stopped.
func (c *control) forwardToSelf(op rpc.Op[supervisor.Ref, supervisor.Service]) forwarding {
	return forwarding{op.Info, "supervisor", func(s *rpc.Server, conn *rpc.Conn) {
		rpc.Handle(s, op, func(ctx context.Context, req *supervisor.Ref) (*supervisor.Service, error) {
			if req.Service != name {
				return op.Call(ctx, conn, req)
			}
			self, err := supervisor.Get.Call(ctx, conn, req)
			if err != nil {
				return nil, err
			}
			errand := func(ctx context.Context) {
				if _, err := op.Call(ctx, conn, req); err != nil && ctx.Err() == nil {
					c.log.Error("control.errand_failed", "op", op.ID, "err", err)
				}
			}
			select {
			case c.errands <- errand:
			default:
				return nil, fault.New(fault.Conflict, "control is being stopped or restarted already")
			}
			self.State, self.Reason = "stopping", op.Summary
			return self, nil
		})
	}}
}
