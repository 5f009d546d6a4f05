package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type sessionListOptions struct {
	user, state string
	limit       int
	watch       bool
}

func newSessionList(f *factory) *cobra.Command {
	o := &sessionListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List open sessions, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSessionList(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.user, "user", "", "only this user's")
	cmd.Flags().StringVar(&o.state, "state", "", "only these: online, offline")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "print at most so many; 0 prints all")
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"online", "offline"}, cobra.ShellCompDirectiveNoFileComp))
	watchFlag(cmd, &o.watch)
	return cmd
}

func runSessionList(ctx context.Context, f *factory, o *sessionListOptions) error {
	t := view.Sessions()
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[sessions.Session], error) {
		return pages(ctx, f, sessions.List, o.limit, 10_000, &sessions.ListRequest{User: o.user, State: o.state},
			func(r *sessions.ListRequest, limit int, after string) { r.Limit, r.After = limit, after })
	})
}
