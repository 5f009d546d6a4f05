package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/ipam"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type ipamStatusOptions struct{ watch bool }

func newIPAMStatus(f *factory) *cobra.Command {
	o := &ipamStatusOptions{}
	cmd := &cobra.Command{
		Use: "status", Short: "Show how full the address pools are", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runIPAMStatus(cmd.Context(), f, o) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runIPAMStatus(ctx context.Context, f *factory, o *ipamStatusOptions) error {
	t := view.Pools()
	if !o.watch && (f.output == "json" || f.output == "yaml") {
		s, err := call(ctx, f, ipam.Status, nil)
		if err != nil {
			return err
		}
		return f.printObject(s)
	}
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[ipam.PoolStatus], error) {
		s, err := call(ctx, f, ipam.Status, nil)
		if err != nil {
			return nil, err
		}
		return &rpc.List[ipam.PoolStatus]{Items: s.Pools, Total: len(s.Pools)}, nil
	})
}
