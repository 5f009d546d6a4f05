package tor

import (
	"context"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/services/tor/bridges"
)

func list[T any](items []T, err error) (*rpc.List[T], error) {
	if err != nil {
		return nil, err
	}
	if items == nil {
		items = []T{}
	}
	return &rpc.List[T]{Items: items, Total: len(items)}, nil
}

// registerMore offers what goes beyond the wish.
func (s *Service) registerMore(srv *rpc.Server) {
	rpc.Handle(srv, api.ListCircuits, func(ctx context.Context, _ *struct{}) (*rpc.List[api.Circuit], error) {
		return list(s.listCircuits(ctx))
	})
	rpc.Handle(srv, api.GetCircuit, func(ctx context.Context, r *api.CircuitRef) (*api.Circuit, error) {
		return s.getCircuit(ctx, r.ID)
	})
	rpc.Handle(srv, api.CloseCircuit, func(ctx context.Context, r *api.CircuitRef) (*rpc.None, error) {
		return &rpc.None{}, s.closeCircuit(ctx, r.ID)
	})
	rpc.Handle(srv, api.ListStreams, func(ctx context.Context, _ *struct{}) (*rpc.List[api.Stream], error) {
		return list(s.listStreams(ctx))
	})
	rpc.Handle(srv, api.NewID, s.newID)
	rpc.Handle(srv, api.ListExits, func(context.Context, *struct{}) (*rpc.List[api.Choice], error) {
		return list(s.listExits(), nil)
	})
	rpc.Handle(srv, api.SetExit, s.setExit)
	rpc.Handle(srv, api.ClearExit, func(ctx context.Context, r *api.UserRef) (*rpc.None, error) {
		return &rpc.None{}, s.clearExit(ctx, r.User)
	})
	rpc.Handle(srv, api.ListRelays, func(_ context.Context, r *api.RelayRequest) (*rpc.List[api.Relay], error) {
		return s.listRelays(r), nil
	})
	rpc.Handle(srv, api.ListOnions, func(ctx context.Context, _ *struct{}) (*rpc.List[api.Onion], error) {
		return list(s.listOnions(ctx))
	})
	rpc.Handle(srv, api.RunCheck, func(ctx context.Context, _ *struct{}) (*api.Check, error) { return s.check(ctx) })
	rpc.Handle(srv, api.GetLaneView, func(ctx context.Context, r *api.LaneViewRequest) (*api.LaneView, error) {
		return s.view(ctx, r.User), nil
	})
	rpc.Handle(srv, api.SetIsolation, func(_ context.Context, r *api.IsolationRequest) (*api.Status, error) {
		return s.setIsolation(r.Body.Isolation)
	})
	s.registerBridges(srv)
}

func (s *Service) registerBridges(srv *rpc.Server) {
	rpc.Handle(srv, api.ListBridges, func(context.Context, *struct{}) (*rpc.List[api.Bridge], error) {
		return list(s.bridges.List(), nil)
	})
	rpc.Handle(srv, api.AddBridge, func(_ context.Context, r *api.BridgeRequest) (*api.Bridge, error) {
		b, err := s.bridges.Add(r.Body.Line)
		if err != nil {
			return nil, err
		}
		wake(s.kick)
		return &b, nil
	})
	rpc.Handle(srv, api.RemoveBridge, func(_ context.Context, r *api.BridgeRef) (*rpc.None, error) {
		err := s.bridges.Remove(r.ID)
		wake(s.kick)
		return &rpc.None{}, err
	})
	rpc.Handle(srv, api.TestBridge, func(ctx context.Context, r *api.BridgeRef) (*api.BridgeTest, error) {
		t, err := s.bridges.Test(ctx, r.ID, bridges.TestOptions{Binary: s.cfg.Binary, ExtraTorrc: s.cfg.ExtraTorrc, Dir: s.paths.run})
		if err != nil {
			return nil, err
		}
		return &t, nil
	})
	rpc.Handle(srv, api.UseBridges, func(ctx context.Context, r *api.BridgeUse) (*api.Status, error) {
		return s.useBridges(ctx, r.Body.Enabled)
	})
}

// useBridges answers with how tor is with the change, or after a while
// without, so that nobody reads a state that is about to end.
func (s *Service) useBridges(ctx context.Context, enabled bool) (*api.Status, error) {
	if err := s.bridges.Use(enabled); err != nil {
		return nil, err
	}
	s.publish(events.Event{Type: "tor.bridges", Message: "bridges are " + map[bool]string{true: "in use", false: "not used any more"}[enabled],
		Data: map[string]string{"enabled": map[bool]string{true: "yes", false: "no"}[enabled]}})
	wake(s.kick)
	short, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if s.await(short, func() bool { return s.obs.bridges == enabled || s.obs.process != api.ProcessRunning }) == nil {
		if err := s.ask(ctx); err != nil {
			s.log.Warn("lanes.silent", "err", err)
		}
	}
	return s.Status(), nil
}

func (s *Service) setIsolation(isolation string) (*api.Status, error) {
	if isolation != byDevice && isolation != byDestination {
		return nil, fault.InvalidField("isolation", "%q is neither %s nor %s", isolation, byDevice, byDestination)
	}
	if err := s.setSettings(func(n *settings) error { n.Isolation = isolation; return nil }); err != nil {
		return nil, err
	}
	s.publish(events.Event{Type: "tor.isolation", Reason: isolation})
	wake(s.kick)
	return s.Status(), nil
}
