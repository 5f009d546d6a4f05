package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
)

func newTorStop(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "stop", Short: "Stop tor; returns after it has ended", Args: noArgs,
		Long: `Stop tor until 'vpnctl tor start'. The lane is in maintenance meanwhile.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorStop(cmd.Context(), f, o) },
	}
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runTorStop(ctx context.Context, f *factory, o *torActOptions) error {
	return actOnTor(ctx, f, o, processTor(f, tor.Stop, "stop", torAct{verb: "stop"}))
}
