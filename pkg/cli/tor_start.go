package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
)

func newTorStart(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "start", Short: "Start tor", Args: noArgs,
		Long: `Start tor, and keep it running. The lane comes up when tor works and up is
wished.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorStart(cmd.Context(), f, o) },
	}
	dryRunFlag(cmd, &o.dryRun)
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the lane is up, as long as --timeout says (default 60s)")
	return cmd
}

func runTorStart(ctx context.Context, f *factory, o *torActOptions) error {
	return actOnTor(ctx, f, o, processTor(f, tor.Start, "start", torAct{verb: "start", up: true}))
}
