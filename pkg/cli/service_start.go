package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
)

func newServiceStart(f *factory) *cobra.Command {
	o := &serviceActOptions{}
	cmd := &cobra.Command{
		Use: "start NAME…", Short: "Start services", Args: oneOrMore("service"), ValidArgsFunction: f.complete(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runServiceStart(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	waitFlag(cmd, &o.wait)
	return cmd
}

func runServiceStart(ctx context.Context, f *factory, o *serviceActOptions, args []string) error {
	return actOnServices(ctx, f, o, args, serviceAct{
		op: supervisor.Start, verb: "start", up: true,
		needed: func(s supervisor.Service) bool { return !isUp(s.State) && s.State != "starting" },
	})
}
