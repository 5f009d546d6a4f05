package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type laneListOptions struct{ watch bool }

func newLaneList(f *factory) *cobra.Command {
	o := &laneListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List lanes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLaneList(cmd.Context(), f, o) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runLaneList(ctx context.Context, f *factory, o *laneListOptions) error {
	t := view.Lanes()
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[lanes.Lane], error) {
		return call(ctx, f, lanes.List, nil)
	})
}
