package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
)

func newTorMaintenance(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "maintenance", Short: "Put lane tor into maintenance, with a page that says why", Args: noArgs,
		Long: `Put lane tor into maintenance until 'vpnctl tor up'. Nothing passes, and who
opens a web page over plain HTTP reads the message.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorMaintenance(cmd.Context(), f, o) },
	}
	dryRunFlag(cmd, &o.dryRun)
	cmd.Flags().StringVar(&o.message, "message", "", "what devices are told")
	reasonFlag(cmd, &o.reason)
	return cmd
}

func runTorMaintenance(ctx context.Context, f *factory, o *torActOptions) error {
	return actOnTor(ctx, f, o, wishTor(f, o, tor.WishMaintenance, torAct{verb: "maintenance"}))
}
