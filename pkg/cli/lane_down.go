package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newLaneDown(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "down NAME…", Short: "Take lanes down: nothing passes, and what is open is cut",
		Long: `Take lanes down; they stay so over restarts. What devices have open in lane vpn
is cut, which is why --accept-risk=drop-sessions is needed. Lane tor is blocked
as 'vpnctl tor down' does, which takes a --reason besides.`,
		Args: oneOrMore("lane"), ValidArgsFunction: f.complete(laneNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runLaneDown(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, true)
	return cmd
}

func runLaneDown(ctx context.Context, f *factory, o *torActOptions, args []string) error {
	return switchLanes(ctx, f, o, args, laneSwitch{verb: "down", risk: dropSessions, tor: torDownAct(f, o)})
}
