package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

func newTorStream(f *factory) *cobra.Command {
	return newNoun("stream", []string{"streams"}, "The connections through tor", newTorStreamList(f))
}

func newTorStreamList(f *factory) *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List connections through tor and whose they are", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := view.Streams()
			return showList(cmd.Context(), f, watch, t, t.Name, func(ctx context.Context) (*rpc.List[tor.Stream], error) {
				l, err := call(ctx, f, tor.ListStreams, nil)
				if err == nil {
					slices.SortStableFunc(l.Items, func(a, b tor.Stream) int { return byID(a.ID, b.ID) })
				}
				return l, err
			})
		},
	}
	watchFlag(cmd, &watch)
	return cmd
}
