package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

func newTorOnion(f *factory) *cobra.Command {
	return newNoun("onion", []string{"onions"}, "The onion names that devices use", newTorOnionList(f))
}

func newTorOnionList(f *factory) *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List onion names and the addresses that stand for them", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := view.Onions()
			return showList(cmd.Context(), f, watch, t, t.Name, func(ctx context.Context) (*rpc.List[tor.Onion], error) {
				return call(ctx, f, tor.ListOnions, nil)
			})
		},
	}
	watchFlag(cmd, &watch)
	return cmd
}
