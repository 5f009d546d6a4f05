package ipam

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/ipam"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/store"
)

// sweepEvery is how often ended rests are forgotten on disk.
const sweepEvery = time.Hour

// Definition makes the service.
func Definition() service.Definition {
	return service.Definition{Name: "ipam", Build: build}
}

func build(ctx context.Context, env *service.Env) (service.Instance, error) {
	db, err := store.Open(ctx, store.Options{Path: filepath.Join(env.StateDir, "ipam.db"), Migrations: Migrations(), Log: env.Log})
	if err != nil {
		return service.Instance{}, err
	}
	a, err := New(ConfigFrom(env.Config), Deps{DB: db, Log: env.Log})
	if err == nil {
		err = a.Load(ctx)
	}
	if err != nil {
		_ = db.Close()
		return service.Instance{}, err
	}
	Register(env.Server, a)
	return service.Instance{Run: func(ctx context.Context) error {
		a.run(ctx)
		return db.Close()
	}}, nil
}

func (a *Allocator) run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := a.Sweep(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("sweep.failed", "err", err)
			}
		}
	}
}

// Register serves the operations.
func Register(s *rpc.Server, a *Allocator) {
	rpc.Handle(s, api.Acquire, func(ctx context.Context, r *api.AcquireRequest) (*api.Lease, error) {
		l, err := a.Acquire(ctx, r.Device, r.Body.User)
		return &l, err
	})
	rpc.Handle(s, api.Release, func(ctx context.Context, r *api.LeaseRef) (*rpc.None, error) {
		return nil, a.Release(ctx, r.Device)
	})
	rpc.Handle(s, api.Status, func(context.Context, *struct{}) (*api.StatusReply, error) {
		st := a.Status()
		return &st, nil
	})
	rpc.Handle(s, api.Leases, func(ctx context.Context, r *api.ListRequest) (*rpc.List[api.Lease], error) {
		after, err := cursor(r.After)
		if err != nil {
			return nil, err
		}
		items, total, next, err := a.List(ctx, id.User(r.User), after, r.Limit)
		if err != nil {
			return nil, err
		}
		out := &rpc.List[api.Lease]{Items: items, Total: total}
		if out.Items == nil {
			out.Items = []api.Lease{}
		}
		if next > 0 {
			out.Next = strconv.FormatInt(next, 10)
		}
		return out, nil
	})
}

func cursor(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.InvalidField("query.after", "is not a cursor of this list")
	}
	return n, nil
}
