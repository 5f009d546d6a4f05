package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/view"
)

type torStatusOptions struct{ watch bool }

func newTorStatus(f *factory) *cobra.Command {
	o := &torStatusOptions{}
	cmd := &cobra.Command{
		Use: "status", Short: "Show what lane tor is in, why, and how Tor does", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorStatus(cmd.Context(), f, o) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runTorStatus(ctx context.Context, f *factory, o *torStatusOptions) error {
	return showPages(ctx, f, o.watch, view.Tor(), []string{"tor"}, func(ctx context.Context, _ string) (tor.Status, error) { return getTor(ctx, f) })
}

func getTor(ctx context.Context, f *factory) (tor.Status, error) {
	s, err := call(ctx, f, tor.GetStatus, nil)
	if err != nil {
		return tor.Status{}, err
	}
	return *s, nil
}
