package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type serviceListOptions struct{ watch bool }

func newServiceList(f *factory) *cobra.Command {
	o := &serviceListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List services", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServiceList(cmd.Context(), f, o) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runServiceList(ctx context.Context, f *factory, o *serviceListOptions) error {
	t := view.Services()
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[supervisor.Service], error) {
		return call(ctx, f, supervisor.List, nil)
	})
}
