package sessions

import (
	"context"
	"sync"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

// laneWait bounds how long a device waits for what one sibling says of a lane.
const laneWait = time.Second

// stateUnknown is that of a lane that nobody tells of.
const stateUnknown = "unknown"

// LaneStates tells a device with an open session how both lanes are. A sibling
// that does not answer in time makes a lane's state unknown; it fails nothing.
func (m *Manager) LaneStates(ctx context.Context, user id.User, device id.Device) (*client.LaneStates, error) {
	s := m.open(device)
	if s == nil || s.User != user {
		return nil, fault.New(fault.NotFound, "no session is open").WithReason("no_session").WithHint("connect again")
	}
	ctx, cancel := context.WithTimeout(ctx, laneWait)
	defer cancel()
	var both sync.WaitGroup
	var list []lanes.Lane
	var view *tor.LaneView
	var lanesErr, torErr error
	both.Go(func() { list, lanesErr = m.sib.Interfaces(ctx) })
	both.Go(func() { view, torErr = m.sib.TorView(ctx, user) })
	both.Wait()
	interfaces := make(map[lanes.Name]lanes.Lane, len(list))
	for _, l := range list {
		interfaces[l.Name] = l
	}
	out := &client.LaneStates{}
	switch l, ok := interfaces[lanes.VPN]; {
	case lanesErr != nil:
		out.VPN = m.unknown("lanes", lanesErr)
	case ok:
		out.VPN = client.LaneState{State: l.State, Reason: l.Reason}
	default:
		out.VPN = m.unknown("lanes", nil)
	}
	if torErr != nil {
		out.Tor = m.unknown("tor", torErr)
		return out, nil
	}
	out.Tor = client.LaneState{
		State: view.State, Reason: view.Reason, Exits: view.Exits, Strict: view.Strict, ExitCountry: view.Country,
	}
	// What tor asks for holds only where lanes has done it.
	if l, ok := interfaces[lanes.Tor]; ok && l.State != view.State {
		out.Tor.State, out.Tor.Reason = l.State, l.Reason
	}
	return out, nil
}

// unknown is the state of a lane whose service does not tell; why not is for the
// log, not for devices.
func (m *Manager) unknown(service string, err error) client.LaneState {
	m.log.Debug("lane.state_unknown", "service", service, "err", err)
	return client.LaneState{State: stateUnknown, Reason: "the server's " + service + " service does not answer"}
}
