package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// userStandingOptions are those of suspend and activate.
type userStandingOptions struct{ dryRun bool }

func newUserActivate(f *factory) *cobra.Command {
	o := &userStandingOptions{}
	cmd := &cobra.Command{
		Use: "activate NAME…", Short: "Activate suspended users", SuggestFor: []string{"resume", "unsuspend", "enable"},
		Args: oneOrMore("user"), ValidArgsFunction: f.complete(userNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runUserActivate(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runUserActivate(ctx context.Context, f *factory, o *userStandingOptions, args []string) error {
	return changeStanding(ctx, f, o, args, "activate", users.Activate, users.Active)
}

func changeStanding(ctx context.Context, f *factory, o *userStandingOptions, args []string, verb string, op rpc.Op[users.Ref, users.User], to users.Status) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	if o.dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
			u, err := getUser(f)(ctx, name)
			if err != nil {
				return step{}, err
			}
			s := step{Action: verb, Kind: "user", Name: u.Username, ID: string(u.ID), Change: u.Status != to, Detail: "is " + string(u.Status)}
			if s.Change && to == users.Suspended {
				open, err := openSessions(ctx, f, string(u.ID))
				if err != nil {
					return step{}, err
				}
				s.Detail = "closes " + view.Count(open, "open session", "open sessions")
			}
			return s, nil
		})
		return f.printPlan(steps, err)
	}
	changed, err := each(ctx, names, func(ctx context.Context, name string) (users.User, error) {
		u, err := call(ctx, f, op, &users.Ref{User: name})
		if err != nil {
			return users.User{}, err
		}
		return *u, nil
	})
	if perr := printChanged(f, view.Users(), len(names), changed); perr != nil {
		return perr
	}
	return err
}
