package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newLaneDown(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "down tor", Short: "Block lane tor, as 'vpnctl tor down' does", Args: oneOrMore("lane"), ValidArgsFunction: f.complete(switchableLanes),
		RunE: func(cmd *cobra.Command, args []string) error { return runLaneDown(cmd.Context(), f, o, args) },
	}
	torDownFlags(cmd, o)
	return cmd
}

func runLaneDown(ctx context.Context, f *factory, o *torActOptions, args []string) error {
	if err := f.onlyTor(args); err != nil {
		return err
	}
	return runTorDown(ctx, f, o)
}
