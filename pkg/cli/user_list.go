package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type userListOptions struct {
	status, search string
	limit          int
	watch          bool
}

func newUserList(f *factory) *cobra.Command {
	o := &userListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List users", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUserList(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.status, "status", "", "only these: active, suspended, deleting")
	cmd.Flags().StringVar(&o.search, "search", "", "only those with this in their name or e-mail address")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "print at most so many; 0 prints all")
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"active", "suspended", "deleting"}, cobra.ShellCompDirectiveNoFileComp))
	watchFlag(cmd, &o.watch)
	return cmd
}

func runUserList(ctx context.Context, f *factory, o *userListOptions) error {
	t := view.Users()
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[users.User], error) {
		return pages(ctx, f, users.ListUsers, o.limit, 1000, &users.ListRequest{Status: o.status, Search: o.search},
			func(r *users.ListRequest, limit int, after string) { r.Limit, r.After = limit, after })
	})
}
