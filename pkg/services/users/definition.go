package users

import (
	"context"
	"path/filepath"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/passwd"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/store"
)

// Definition is the service.
func Definition() service.Definition {
	return service.Definition{Name: "users", Build: build}
}

func build(ctx context.Context, env *service.Env) (service.Instance, error) {
	cost := env.Config.Auth.Argon2
	workers, err := passwd.NewWorkers(passwd.Params{Memory: cost.MemoryKiB, Time: cost.Time, Threads: cost.Threads}, 0)
	if err != nil {
		return service.Instance{}, err
	}
	db, err := store.Open(ctx, store.Options{Path: filepath.Join(env.StateDir, "users.db"), Migrations: Migrations(), Log: env.Log})
	if err != nil {
		return service.Instance{}, err
	}
	u, err := New(Deps{
		DB: db, Hash: workers.Hash, Siblings: remote{sessions: env.Sibling("sessions"), auth: env.Sibling("auth")},
		Log: env.Log, Publish: env.Events.Publish,
	})
	if err == nil {
		err = u.Load(ctx)
	}
	if err != nil {
		_ = db.Close()
		return service.Instance{}, err
	}
	u.register(env.Server)
	return service.Instance{Run: func(ctx context.Context) error {
		defer db.Close() // every call has been answered when ctx ends
		return u.Run(ctx)
	}}, nil
}

// remote is Siblings over their sockets.
type remote struct{ sessions, auth *rpc.Conn }

func (r remote) CloseSessions(ctx context.Context, user id.User, reason sessions.Reason, forget bool) error {
	req := &sessions.CloseRequest{}
	req.Body.User, req.Body.Reason, req.Body.Forget = user, reason, forget
	_, err := sessions.Close.Call(ctx, r.sessions, req)
	return err
}

func (r remote) RevokeUser(ctx context.Context, user id.User) error {
	_, err := authapi.RevokeUser.Call(ctx, r.auth, &authapi.UserRef{User: user})
	return err
}

func (r remote) ForgetUser(ctx context.Context, user id.User) error {
	_, err := authapi.ForgetUser.Call(ctx, r.auth, &authapi.UserRef{User: user})
	return err
}
