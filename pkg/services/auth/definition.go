package auth

import (
	"context"
	"path/filepath"

	"vpnd/pkg/passwd"
	"vpnd/pkg/service"
	"vpnd/pkg/store"
)

// Definition is the service.
func Definition() service.Definition {
	return service.Definition{Name: "auth", Build: build}
}

func build(ctx context.Context, env *service.Env) (service.Instance, error) {
	cost := env.Config.Auth.Argon2
	workers, err := passwd.NewWorkers(passwd.Params{Memory: cost.MemoryKiB, Time: cost.Time, Threads: cost.Threads}, 0)
	if err != nil {
		return service.Instance{}, err
	}
	db, err := store.Open(ctx, store.Options{Path: filepath.Join(env.StateDir, "auth.db"), Migrations: Migrations(), Log: env.Log})
	if err != nil {
		return service.Instance{}, err
	}
	a, err := New(env.Config.Auth, Deps{
		DB: db, Keys: remoteKeys{env.Sibling("keys")}, Users: remoteUsers{env.Sibling("users")}, Sessions: remoteSessions{env.Sibling("sessions")},
		Passwords: queued{workers}, Log: env.Log, Publish: env.Events.Publish,
	})
	if err == nil {
		err = a.Load(ctx)
	}
	if err != nil {
		_ = db.Close()
		return service.Instance{}, err
	}
	a.register(env.Server)
	return service.Instance{Ready: a.Ready, Run: func(ctx context.Context) error {
		defer db.Close() // every call has been answered when ctx ends
		return a.Run(ctx)
	}}, nil
}

// queued is Passwords by workers that are as many as there are cores. Hashes
// made with other parameters are left alone: users owns them.
type queued struct{ *passwd.Workers }

func (q queued) Verify(ctx context.Context, hash, password string) (bool, error) {
	ok, _, err := q.Workers.Verify(ctx, hash, password)
	return ok, err
}
