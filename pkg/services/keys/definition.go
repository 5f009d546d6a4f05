package keys

import (
	"context"

	"vpnd/pkg/service"
)

// Definition is the service.
func Definition() service.Definition {
	return service.Definition{Name: "keys", Build: build}
}

// build reads the keys at once, so that the service is ready when its socket
// first answers. Where that fails Run goes on trying and Ready tells why.
func build(ctx context.Context, env *service.Env) (service.Instance, error) {
	k, err := New(
		Config{Dir: env.StateDir, Endpoint: env.Config.Server.Endpoint},
		Deps{Log: env.Log, Publish: env.Events.Publish},
	)
	if err != nil {
		return service.Instance{}, err
	}
	if err := k.Bootstrap(ctx); err != nil {
		env.Log.Error("keys.failed", "err", err)
	}
	k.register(env.Server)
	return service.Instance{Run: k.Run, Ready: k.Ready}, nil
}
