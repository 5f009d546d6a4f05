package agent

import (
	"context"
	"errors"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/profile"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
)

const (
	// lanesLife is how long what the server said of the lanes is shown to those
	// who watch before it is asked again.
	lanesLife = 10 * time.Second
	// lanesTimeout bounds that question. The tunnel answers at once or is dead.
	lanesTimeout = 3 * time.Second
)

// live tells whether there is a tunnel, or one that is being made.
func (a *Agent) live() bool {
	return a.state == agentapi.Connecting || a.state == agentapi.Up || a.state == agentapi.Stale
}

func (a *Agent) notUp(lane profile.Lane) error {
	return fault.New(fault.Conflict, "the tunnel is %s: there is no lane to change", a.state).
		WithReason("not_up").WithHint("vpn up --lane %s", lane)
}

// changeLane goes on in a.lane. The peer of the other lane goes first, so that
// from here to the first handshake nothing passes, also when the server's address
// has to be looked up before: what was sent for one lane belongs to no other. The
// rules stay.
func (a *Agent) changeLane(ctx context.Context) {
	a.enter(agentapi.Connecting, "", "changing to lane "+string(a.lane))
	a.laneState, a.lanesAsked = nil, time.Time{}
	quick, cancel := local(ctx)
	err := a.Machine.Silence(quick)
	cancel()
	if err != nil {
		a.Log.Warn("silencing the lane of before", "err", err) // Connect removes the peer too, or fails
	}
	a.endpoints = 0
	a.configure(ctx)
}

// checkLanes asks how the lanes are for somebody who wants to know now.
func (a *Agent) checkLanes(ctx context.Context) {
	one, end := a.calls.begin(ctx)
	defer end()
	a.askLanes(one, 0)
}

// askLanes asks the server how the lanes are, unless it was asked within age.
// What comes of it is for show only.
func (a *Agent) askLanes(ctx context.Context, age time.Duration) {
	if a.state != agentapi.Up || now().Sub(a.lanesAsked) < age {
		return
	}
	states, err := a.lanes(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return // interrupted
	}
	a.lanesAsked = now()
	switch {
	case err != nil:
		a.laneState = unknownLane(whyUnknown(err))
	case a.lane == profile.Tor:
		a.laneState = &states.Tor
	default:
		a.laneState = &states.VPN
	}
}

func (a *Agent) lanes(ctx context.Context) (client.LaneStates, error) {
	if a.beat.State == "failing" {
		return client.LaneStates{}, fault.New(fault.Unavailable, "%s", a.beat.Error)
	}
	p, err := a.Store.Load()
	if err != nil {
		return client.LaneStates{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, lanesTimeout)
	defer cancel()
	return a.Server.LaneStates(ctx, p.Tokens.Access)
}

// knownLaneState is what to say of the lane: only a tunnel that is up knows.
func (a *Agent) knownLaneState() *client.LaneState {
	if a.state == agentapi.Up {
		return a.laneState
	}
	return unknownLane("the server has not answered in this lane")
}

func unknownLane(why string) *client.LaneState {
	return &client.LaneState{State: "unknown", Reason: why}
}

func whyUnknown(err error) string {
	if errors.Is(err, fault.NotFound) && fault.ReasonOf(err) == "" {
		return "the server is too old to tell" // it has no such operation
	}
	return fault.From(err).Message
}
