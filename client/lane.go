package client

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"vpnd/client/agentapi"
	"vpnd/client/profile"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
)

func newLane(f *factory) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "lane [vpn|tor]",
		Short: "Show the tunnel's lane, or change it",
		Long: `Show the lane, or change that of a tunnel that is up.

It returns when the server has answered in the new lane. The session stays, and
nothing leaves in the clear in between. Connections that were opened in one lane end:
they do not go on in the other. The lane is that of the next 'vpn up' too.`,
		Args:      atMostOne,
		ValidArgs: []string{string(profile.VPN), string(profile.Tor)},
		RunE: run(func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				return showLane(ctx, f)
			}
			return changeLane(ctx, f, profile.Lane(args[0]), timeout)
		}),
	}
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	return c
}

// laneReport is what lane prints.
type laneReport struct {
	Lane      profile.Lane      `json:"lane" enum:"vpn,tor" doc:"of the tunnel, or of the next one"`
	Tunnel    agentapi.State    `json:"tunnel" enum:"down,connecting,up,stale,closed,crashed"`
	LaneState *client.LaneState `json:"lane_state,omitempty" doc:"as in status"`
}

func showLane(ctx context.Context, f *factory) error {
	r, _, err := readReport(ctx, f)
	if err != nil {
		return err
	}
	lane := r.Tunnel.Lane
	if lane == "" {
		store, err := f.store()
		if err != nil {
			return err
		}
		p, err := store.Load()
		if err != nil {
			return err
		}
		lane = p.PreferredLane()
	}
	return f.printLane(lane, r.Tunnel)
}

func changeLane(ctx context.Context, f *factory, lane profile.Lane, timeout time.Duration) error {
	if lane != profile.VPN && lane != profile.Tor {
		return fault.InvalidField("lane", "%q is neither vpn nor tor", lane)
	}
	if timeout < time.Second || timeout > maxPatience {
		return fault.InvalidField("--timeout", "%s is not between 1s and 10m", timeout)
	}
	conn, err := findAgent(ctx)
	if err != nil {
		return err
	}
	notUp := fault.New(fault.Conflict, "the tunnel is not up: there is no lane to change").WithReason("not_up").WithHint("vpn up --lane %s", lane)
	if conn == nil {
		return notUp
	}
	req := &agentapi.SwitchRequest{}
	req.Body.Lane, req.Body.Patience = lane, max(1, int(timeout.Seconds()))
	waiting, cancel := context.WithTimeout(ctx, timeout+answerPatience)
	defer cancel()
	st, err := agentapi.PostLane.Call(waiting, conn, req)
	switch {
	case errors.Is(err, fault.Unavailable) && fault.From(err).Hint == "" && agentEnded(ctx):
		return notUp
	case err != nil:
		return err
	}
	// How the lane is at the server is worth knowing, but no reason to fail.
	if checked, err := agentapi.GetStatus.Call(waiting, conn, &agentapi.StatusRequest{Check: true}); err == nil {
		st = checked
	}
	return f.printLane(st.Lane, *st)
}

func (f *factory) printLane(lane profile.Lane, t agentapi.Status) error {
	return f.print(laneReport{lane, t.State, t.LaneState}, func(row func(string, string, ...any)) {
		state, why := describeLane(t.LaneState)
		row("Lane", "%s%s", lane, state)
		rowIf(row, "", why)
		rowIf(row, "Exit", describeExit(t.LaneState))
		row("Tunnel", "%s", t.State)
	})
}
