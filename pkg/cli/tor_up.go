package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
)

func newTorUp(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "up", Short: "Bring lane tor up", Args: noArgs,
		Long: `Wish lane tor up. It is up as soon as Tor works; until then it is in
maintenance, 'vpnctl tor status' says why, and it comes up by itself.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorUp(cmd.Context(), f, o) },
	}
	torUpFlags(cmd, o)
	return cmd
}

func runTorUp(ctx context.Context, f *factory, o *torActOptions) error {
	return actOnTor(ctx, f, o, torUpAct(f, o))
}

func torUpAct(f *factory, o *torActOptions) torAct {
	return wishTor(f, o, tor.WishUp, torAct{verb: "up", up: true})
}
