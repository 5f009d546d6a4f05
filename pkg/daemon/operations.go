package daemon

import (
	"context"
	"slices"

	api "vpnd/pkg/api/supervisor"
	"vpnd/pkg/rpc"
	"vpnd/pkg/supervise"
)

// register offers the supervisor's operations.
func (d *daemon) register(s *rpc.Server) {
	rpc.Handle(s, api.List, func(context.Context, *struct{}) (*rpc.List[api.Service], error) {
		all := d.sup.Status()
		out := &rpc.List[api.Service]{Items: make([]api.Service, 0, len(all)), Total: len(all)}
		for _, st := range all {
			out.Items = append(out.Items, d.describe(st))
		}
		order := map[string]int{}
		for i, e := range table() {
			order[e.name] = i - len(table())
		}
		slices.SortStableFunc(out.Items, func(a, b api.Service) int { return order[a.Name] - order[b.Name] })
		return out, nil
	})
	rpc.Handle(s, api.Get, func(_ context.Context, r *api.Ref) (*api.Service, error) { return d.get(r.Service) })
	verb := func(op rpc.Op[api.Ref, api.Service], do func(context.Context, string) error) {
		rpc.Handle(s, op, func(ctx context.Context, r *api.Ref) (*api.Service, error) {
			if err := do(ctx, r.Service); err != nil {
				return nil, err
			}
			return d.get(r.Service)
		})
	}
	verb(api.Start, d.sup.Start)
	verb(api.Stop, d.sup.Stop)
	verb(api.Restart, d.sup.Restart)
	rpc.Handle(s, api.Reload, func(ctx context.Context, _ *struct{}) (*api.Changes, error) { return d.reload(ctx) })
}

func (d *daemon) get(name string) (*api.Service, error) {
	st, err := d.sup.Get(name)
	if err != nil {
		return nil, err
	}
	out := d.describe(st)
	return &out, nil
}

func (d *daemon) describe(st supervise.Status) api.Service {
	d.mu.Lock()
	spec, mode := d.specs[st.Name], d.config.Users.Mode
	d.mu.Unlock()
	out := api.Service{
		Name: st.Name, State: string(st.State), Reason: st.Reason, Since: st.Since, Enabled: st.Enabled, PID: st.PID,
		StartedAt: st.StartedAt, Restarts: st.Restarts, User: spec.User, Socket: spec.SocketPath, Command: spec.Cmd,
		NextStartAt: st.NextRetry, Missed: st.MissedPongs, StderrTail: st.StderrTail,
	}
	out.PingMicros = int64(st.PongLatency) / 1000
	if _, ours := lookup(st.Name); ours && mode == "system" {
		out.User = accountName(st.Name)
	}
	if out.User == "" {
		out.User = "root" // whom the supervisor itself runs as
	}
	if st.LastExit != nil {
		out.LastExit, out.LastExitAt = st.LastExit.Words, &st.LastExit.Time
	}
	return out
}
