package tor

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/sessions"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/services/tor/streams"
	"vpnd/pkg/torctl"
)

// tor is the connection to tor, or says that there is none.
func (s *Service) tor() (*torctl.Client, error) {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	if c == nil {
		return nil, s.unreached()
	}
	return c, nil
}

func (s *Service) listCircuits(ctx context.Context) ([]api.Circuit, error) {
	c, err := s.tor()
	if err != nil {
		return nil, err
	}
	all, err := c.Circuits(ctx)
	if err != nil {
		return nil, err
	}
	uses, err := s.uses(ctx)
	if err != nil {
		return nil, err
	}
	relays := s.book.relays()
	out := make([]api.Circuit, 0, len(all))
	for _, circ := range all {
		use := uses[circ.ID]
		one := api.Circuit{
			ID: circ.ID, State: circ.Status, Purpose: circ.Purpose, Streams: use.Streams, Ours: use.Ours,
			Path: make([]api.Hop, 0, len(circ.Path)), Devices: make([]api.Owner, 0, len(use.Devices)),
		}
		if circ.Purpose == "PATH_BIAS_TESTING" {
			one.State = "CLOSING" // tor asks the exit something before it lets go
		}
		one.Created, _ = time.Parse("2006-01-02T15:04:05.999999", circ.Fields["TIME_CREATED"])
		for _, h := range circ.Path {
			hop := api.Hop{Fingerprint: h.Fingerprint, Nickname: h.Nickname}
			if r, ok := relays.Relay(h.Fingerprint); ok {
				hop.Nickname, hop.Address, hop.Country = r.Nickname, r.Addr, r.Country
			}
			one.Path = append(one.Path, hop)
		}
		for _, d := range use.Devices {
			one.Devices = append(one.Devices, s.ownerOf(ctx, d))
		}
		out = append(out, one)
	}
	return out, nil
}

func (s *Service) getCircuit(ctx context.Context, id string) (*api.Circuit, error) {
	all, err := s.listCircuits(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.ID == id {
			return &c, nil
		}
	}
	return nil, noCircuit(id)
}

func noCircuit(id string) error {
	return fault.New(fault.NotFound, "there is no circuit %s", id).WithHint("vpnctl tor circuit list")
}

func (s *Service) closeCircuit(ctx context.Context, id string) error {
	c, err := s.tor()
	if err != nil {
		return err
	}
	if err = c.CloseCircuit(ctx, id); errors.Is(err, fault.NotFound) {
		return noCircuit(id) // tor's own words are a number and a protocol's term
	}
	return err
}

func (s *Service) listStreams(ctx context.Context) ([]api.Stream, error) {
	c, err := s.tor()
	if err != nil {
		return nil, err
	}
	all, err := c.Streams(ctx)
	if err != nil {
		return nil, err
	}
	sources, ok := glance(ctx, s, lookFor, func(a *streams.Attacher) []netip.Addr {
		out := make([]netip.Addr, len(all))
		for i, st := range all {
			out[i] = a.Source(st.ID)
		}
		return out
	})
	if !ok {
		return nil, s.unreached()
	}
	out := make([]api.Stream, 0, len(all))
	for i, st := range all {
		one := api.Stream{ID: st.ID, State: st.Status, Target: st.Target}
		if st.Circuit != "0" {
			one.Circuit = st.Circuit
		}
		one.Owner = s.ownerOf(ctx, sources[i])
		out = append(out, one)
	}
	return out, nil
}

// ownerOf names a device as well as can be done now.
func (s *Service) ownerOf(ctx context.Context, device netip.Addr) api.Owner {
	o := api.Owner{Address: device}
	if !device.IsValid() {
		return o
	}
	if owner, err := s.owners.of(ctx, device); err == nil {
		o.User, o.Device = owner.Username, owner.DeviceName
	}
	return o
}

func addressesOf(all ...sessions.Session) []netip.Addr {
	var out []netip.Addr
	for _, s := range all {
		out = append(out, s.TorIPv4, s.TorIPv6)
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return !a.IsValid() })
}

// newID gives devices a new identity.
func (s *Service) newID(ctx context.Context, r *api.NewIDRequest) (*api.NewIDReply, error) {
	n := 0
	for _, given := range []bool{r.Body.User != "", r.Body.Device != "", r.Body.All} {
		if given {
			n++
		}
	}
	if n != 1 {
		return nil, fault.InvalidField("user", "name a user, or a device, or all; exactly one of them")
	}
	var devices []netip.Addr
	e := events.Event{Type: "tor.newid"}
	count := 0
	switch {
	case r.Body.User == everybody:
		return nil, fault.InvalidField("user", "%q is no user; say all for everybody", everybody)
	case r.Body.User != "":
		id, name, err := s.who(ctx, r.Body.User)
		if err != nil {
			return nil, err
		}
		open, err := s.siblings.sessions(ctx, id)
		if err != nil {
			return nil, err
		}
		devices, count, e.User = addressesOf(open...), len(open), name
	case r.Body.Device != "":
		if user, device, two := strings.Cut(r.Body.Device, "/"); two && (user == "" || device == "") {
			return nil, fault.InvalidField("device", "%q is neither username/device nor a session id", r.Body.Device)
		}
		one, err := s.siblings.session(ctx, r.Body.Device)
		if err != nil {
			return nil, err
		}
		if one.State == sessions.Closed {
			return nil, fault.New(fault.NotFound, "the device %s is not connected", r.Body.Device).WithReason("no_session")
		}
		devices, count, e.User, e.Device = addressesOf(*one), 1, one.Username, one.DeviceName
	default:
		open, err := s.siblings.sessions(ctx, "")
		if err != nil {
			return nil, err
		}
		count, e.Message = len(open), "all devices"
	}
	a := s.attached()
	if a == nil {
		_, err := s.tor()
		if err == nil {
			err = fault.New(fault.Unavailable, "tor was reached just now, try again")
		}
		return nil, err
	}
	closed, err := a.NewIdentity(ctx, devices, r.Body.All)
	if err != nil {
		return nil, err
	}
	about := []any{"devices", count, "circuits", closed.Circuits, "streams", closed.Streams, "request_id", rpc.RequestID(ctx)}
	if e.User != "" {
		about = append(about, "user", e.User)
	}
	if e.Device != "" {
		about = append(about, "device", e.Device)
	}
	s.log.InfoContext(ctx, e.Type, about...)
	s.publish(e)
	return &api.NewIDReply{Devices: count, Circuits: closed.Circuits, Streams: closed.Streams}, nil
}

// view is what a user's devices may know.
func (s *Service) view(ctx context.Context, user string) *api.LaneView {
	st := s.Status()
	v := &api.LaneView{State: st.Lane, Reason: forDevices(st)}
	c, ok := s.settings.Load().Exits[user]
	if !ok {
		c = s.settings.Load().Exits[""]
	}
	v.Exits, v.Strict = c.Exits, c.Strict
	if s.attached() == nil {
		return v
	}
	open, err := s.siblings.sessions(ctx, user)
	if err != nil {
		return v
	}
	exit, _ := glance(ctx, s, glanceFor, func(a *streams.Attacher) string { return a.LastExit(addressesOf(open...)) })
	if relay, ok := s.book.relays().Relay(exit); ok {
		v.Country = relay.Country
	}
	return v
}
