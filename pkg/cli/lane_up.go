package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newLaneUp(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "up NAME…", Short: "Bring lanes up",
		Long: `Bring lanes up; they stay so over restarts. Lane vpn leads to the internet with
this host's address, which is why --accept-risk=open-lane is needed where it
was down. Lane tor comes up as 'vpnctl tor up' says.`,
		Args: oneOrMore("lane"), ValidArgsFunction: f.complete(laneNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runLaneUp(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the lanes are up, as long as --timeout says (default 60s)")
	o.consent.flags(cmd, true)
	return cmd
}

func runLaneUp(ctx context.Context, f *factory, o *torActOptions, args []string) error {
	return switchLanes(ctx, f, o, args, laneSwitch{up: true, verb: "up", risk: openLane, tor: torUpAct(f, o)})
}
