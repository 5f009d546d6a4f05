package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
	"vpnd/pkg/view"
)

type userGetOptions struct{ watch bool }

func newUserGet(f *factory) *cobra.Command {
	o := &userGetOptions{}
	cmd := &cobra.Command{
		Use: "get NAME…", Short: "Show users", Args: oneOrMore("user"), ValidArgsFunction: f.complete(userNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runUserGet(cmd.Context(), f, o, args) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runUserGet(ctx context.Context, f *factory, o *userGetOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	return showPages(ctx, f, o.watch, view.Users(), names, getUser(f))
}

func getUser(f *factory) func(context.Context, string) (users.User, error) {
	return func(ctx context.Context, name string) (users.User, error) {
		u, err := call(ctx, f, users.Get, &users.Ref{User: name})
		if err != nil {
			return users.User{}, err
		}
		return *u, nil
	}
}
