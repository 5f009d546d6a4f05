//go:build linux

// Package control is the service that people and programs of this host talk
// to: it tells who they are by the kernel's word, lets them do what their
// groups allow, writes every change down before it is made, and gathers the
// events of all services into one feed.
//
// It owns control.sock's access levels, the audit trail and the event memory.
// What the operations mean is left to the services they are forwarded to.
// Everything here is called concurrently by the server.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/build"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
)

// name is the service's own, as the supervisor knows it.
const name = "control"

// siblings are the services whose operations are forwarded and whose events
// are gathered.
func siblings() []string {
	return []string{"supervisor", "keys", "users", "auth", "ipam", "sessions", "lanes", "tor", "canary", "gateway", "logs"}
}

// Definition makes the control service.
func Definition() service.Definition {
	c := &control{}
	return service.Definition{Name: name, Configure: c.configure, Build: c.build}
}

type control struct {
	log     *slog.Logger
	cfg     config.Config
	started time.Time
	access  *access
	trail   *trail
	hub     *hub
	conns   map[string]*rpc.Conn
	errands chan func(context.Context) // work that outlives the call that asked for it
}

// configure decides who may come in. It runs before build; both have happened
// when the first call arrives.
func (c *control) configure(env *service.Env, sc *rpc.ServerConfig) error {
	c.log, c.cfg = env.Log, env.Config
	c.access = newAccess(env.Config.Control)
	c.hub = newHub(name)
	sc.Name = "vpnd" // the title of the OpenAPI document
	sc.Identify = c.access.identify
	sc.Refused = func(ctx context.Context, op rpc.Info, err error) { c.trail.refused(ctx, op, err) }
	sc.Around = func(ctx context.Context, op rpc.Info, req any, next func(context.Context) error) error {
		return c.trail.around(ctx, op, req, next)
	}
	return nil
}

func (c *control) build(ctx context.Context, env *service.Env) (service.Instance, error) {
	c.started = time.Now().UTC()
	c.errands = make(chan func(context.Context), 1)
	c.conns = map[string]*rpc.Conn{}
	for _, s := range siblings() {
		c.conns[s] = env.Sibling(s)
	}
	var err error
	if c.trail, err = openTrail(ctx, filepath.Join(env.StateDir, "audit.db"), env.Log, c.hub); err != nil {
		return service.Instance{}, err
	}
	for _, f := range c.forwarded() {
		f.register(env.Server, c.conns[f.service])
	}
	rpc.Handle(env.Server, api.GetVersion, func(context.Context, *struct{}) (*api.Version, error) {
		v := build.Get()
		return &v, nil
	})
	rpc.Handle(env.Server, api.GetStatus, c.status)
	rpc.Handle(env.Server, api.Audit, c.trail.list)
	rpc.HandleStream(env.Server, api.Events, c.hub.stream)
	doc, err := openAPI(env.Server)
	if err != nil {
		return service.Instance{}, fmt.Errorf("describe operations: %w", err)
	}
	env.Server.HandleHTTP("GET /openapi.json", doc)
	return service.Instance{Run: c.run}, nil
}

func (c *control) run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range slices.Sorted(slices.Values(siblings())) {
		wg.Go(func() { c.follow(ctx, s) })
	}
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case errand := <-c.errands:
				errand(ctx)
			}
		}
	})
	wg.Wait()
	return c.trail.close()
}
