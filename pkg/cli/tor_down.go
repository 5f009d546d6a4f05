package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
)

func newTorDown(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "down", Short: "Block lane tor: nothing passes, not even a page that says why", Args: noArgs,
		Long: `Block lane tor until 'vpnctl tor up'. Devices stay connected, but nothing of
theirs passes in this lane; open connections are cut. 'vpnctl tor maintenance'
tells them why.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorDown(cmd.Context(), f, o) },
	}
	torDownFlags(cmd, o)
	return cmd
}

func runTorDown(ctx context.Context, f *factory, o *torActOptions) error {
	return actOnTor(ctx, f, o, torDownAct(f, o))
}

func torDownAct(f *factory, o *torActOptions) torAct {
	return wishTor(f, o, tor.WishDown, torAct{verb: "down", question: "block lane tor and cut what is open in it"})
}
