package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
)

func newServiceRestart(f *factory) *cobra.Command {
	o := &serviceActOptions{}
	cmd := &cobra.Command{
		Use: "restart NAME…", Short: "Restart services; callers wait, nobody is refused",
		Args: oneOrMore("service"), ValidArgsFunction: f.complete(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runServiceRestart(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	waitFlag(cmd, &o.wait)
	return cmd
}

func runServiceRestart(ctx context.Context, f *factory, o *serviceActOptions, args []string) error {
	return actOnServices(ctx, f, o, args, serviceAct{
		op: supervisor.Restart, verb: "restart", up: true,
		needed: func(supervisor.Service) bool { return true },
	})
}
