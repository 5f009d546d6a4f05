package canary

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	api "vpnd/pkg/api/canary"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
)

// kept is how many results are remembered.
const kept = 20

// putTimeout leaves two puts time within the end of a service's work (10 s).
const putTimeout = 4 * time.Second

// Deps are the siblings, and where news goes.
type Deps struct {
	Lanes, Tor *rpc.Conn
	Log        *slog.Logger
	Publish    func(events.Event)
}

// Service runs leak tests.
type Service struct {
	cfg  config.LeakTest
	tor  config.Tor // its ports
	deps Deps
	pace pace
	key  *ecdh.PrivateKey // lives as long as the service
	turn chan struct{}    // holds a value while a test runs

	mu      sync.Mutex            // guards the rest
	results []api.Result          // the newest first
	repairs map[lanes.Name]uint64 // as of the last test
	leaking map[lanes.Name]bool   // it leaked, and no test was ok since
}

// Definition makes the service.
func Definition() service.Definition { return service.Definition{Name: "canary", Build: build} }

func build(_ context.Context, env *service.Env) (service.Instance, error) {
	s, err := New(env.Config.LeakTest, env.Config.Tor, Deps{env.Sibling("lanes"), env.Sibling("tor"), env.Log, env.Events.Publish})
	if err != nil {
		return service.Instance{}, err
	}
	s.Register(env.Server)
	return service.Instance{Run: s.Run}, nil
}

// New makes a service with a key of its own. Of tor only the ports matter.
func New(cfg config.LeakTest, tor config.Tor, deps Deps) (*Service, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the leak test's key: %w", err)
	}
	return &Service{
		cfg: cfg, tor: tor, deps: deps, pace: normalPace(), key: key, turn: make(chan struct{}, 1),
		repairs: map[lanes.Name]uint64{}, leaking: map[lanes.Name]bool{},
	}, nil
}

// Register offers the operations.
func (s *Service) Register(srv *rpc.Server) {
	rpc.Handle(srv, api.Run, func(ctx context.Context, r *api.RunRequest) (*api.Result, error) { return s.Test(ctx, r.Body.Lane) })
	rpc.Handle(srv, api.Last, func(context.Context, *struct{}) (*rpc.List[api.Result], error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return &rpc.List[api.Result]{Items: append([]api.Result{}, s.results...), Total: len(s.results)}, nil
	})
}

// put tells lanes the canary's key; empty takes it away. It is seen through when
// ctx ends: a call that was given up could overtake the one that takes the peer
// away.
func (s *Service) put(ctx context.Context, key string) (*lanes.CanaryCounts, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putTimeout)
	defer cancel()
	r := &lanes.CanaryRequest{}
	r.Body.PublicKey = key
	return lanes.PutCanary.Call(ctx, s.deps.Lanes, r)
}

func (s *Service) public() string {
	return base64.StdEncoding.EncodeToString(s.key.PublicKey().Bytes())
}

// Run notes what lanes has put right so far, and tests as often as configured.
// The canary has a peer during a test only; one of a service that was killed is
// taken away.
func (s *Service) Run(ctx context.Context) error {
	for {
		c, err := s.put(ctx, "")
		if err == nil {
			s.baseline(c)
			break
		}
		s.deps.Log.Info("lanes does not answer yet", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
	if s.cfg.Every == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(s.cfg.Every.D())
	defer tick.Stop()
	said := map[lanes.Name]string{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		for _, name := range []lanes.Name{lanes.Tor, lanes.VPN} {
			_, err := s.Test(ctx, name)
			text := ""
			if err != nil && ctx.Err() == nil {
				text = err.Error()
			}
			if text != "" && text != said[name] { // once, not every time
				s.deps.Log.Warn("leak test could not run", "lane", name, "error", err)
			}
			said[name] = text
		}
	}
}

// leave takes the canary's peer away.
func (s *Service) leave(ctx context.Context) {
	if _, err := s.put(ctx, ""); err != nil {
		s.deps.Log.Info("the leak test's peer stays", "error", err)
	}
}

// baseline is what repairs count from, for lanes that were not tested yet.
func (s *Service) baseline(c *lanes.CanaryCounts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []lanes.Name{lanes.Tor, lanes.VPN} {
		if _, known := s.repairs[name]; !known {
			s.repairs[name] = c.Repairs
		}
	}
}

// repaired tells what was put right since the last test of a lane, and starts
// counting anew. Lanes that has started again counts from zero.
func (s *Service) repaired(name lanes.Name, c *lanes.CanaryCounts) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.repairs[name]
	s.repairs[name] = c.Repairs
	switch {
	case c.Repairs == was || c.Repairs == 0:
		return ""
	case c.Repaired == "":
		return "the rules"
	}
	return c.Repaired
}

// remember keeps a result and tells whether the lane leaked and no test was ok since.
func (s *Service) remember(r api.Result) (leaked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = slices.Insert(s.results, 0, r)
	s.results = s.results[:min(len(s.results), kept)]
	leaked = s.leaking[r.Lane]
	s.leaking[r.Lane] = leaks(&r) || leaked && !r.OK
	return leaked
}
