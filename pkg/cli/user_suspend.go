package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
)

func newUserSuspend(f *factory) *cobra.Command {
	o := &userStandingOptions{}
	cmd := &cobra.Command{
		Use: "suspend NAME…", Short: "Suspend users; returns after their peers are gone",
		Args: oneOrMore("user"), ValidArgsFunction: f.complete(userNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runUserSuspend(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runUserSuspend(ctx context.Context, f *factory, o *userStandingOptions, args []string) error {
	return changeStanding(ctx, f, o, args, "suspend", users.Suspend, users.Suspended)
}
