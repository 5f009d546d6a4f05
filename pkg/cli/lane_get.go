package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type laneGetOptions struct{ watch bool }

func newLaneGet(f *factory) *cobra.Command {
	o := &laneGetOptions{}
	cmd := &cobra.Command{
		Use: "get NAME…", Short: "Show lanes", Args: oneOrMore("lane"), ValidArgsFunction: f.complete(laneNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runLaneGet(cmd.Context(), f, o, args) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runLaneGet(ctx context.Context, f *factory, o *laneGetOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	return showPages(ctx, f, o.watch, view.Lanes(), names, getLane(f))
}

func getLane(f *factory) func(context.Context, string) (lanes.Lane, error) {
	return func(ctx context.Context, name string) (lanes.Lane, error) {
		l, err := call(ctx, f, lanes.List, nil)
		if err != nil {
			return lanes.Lane{}, err
		}
		for _, v := range l.Items {
			if string(v.Name) == name {
				return v, nil
			}
		}
		return lanes.Lane{}, noLane(name)
	}
}

func noLane(name string) error {
	return fault.New(fault.NotFound, "there is no lane %q", name).WithHint("the lanes are vpn and tor")
}
