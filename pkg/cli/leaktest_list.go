package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/canary"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type leakTestListOptions struct{ watch bool }

func newLeakTestList(f *factory) *cobra.Command {
	o := &leakTestListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the last leak tests, the newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLeakTestList(cmd.Context(), f, o) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runLeakTestList(ctx context.Context, f *factory, o *leakTestListOptions) error {
	key := func(r canary.Result) string { return string(r.Lane) + r.At.Format(time.RFC3339Nano) }
	return showList(ctx, f, o.watch, view.LeakTests(), key, func(ctx context.Context) (*rpc.List[canary.Result], error) {
		return call(ctx, f, canary.Last, nil)
	})
}
