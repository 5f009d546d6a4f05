package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/view"
)

type sessionGetOptions struct{ watch bool }

func newSessionGet(f *factory) *cobra.Command {
	o := &sessionGetOptions{}
	cmd := &cobra.Command{
		Use: "get SESSION…", Short: "Show sessions, open or closed",
		Long: `Show sessions. A session is named by its id, the beginning of its id,
user/device, or the user alone where there is one.`,
		Args: oneOrMore("session"), ValidArgsFunction: f.complete(sessionNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runSessionGet(cmd.Context(), f, o, args) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runSessionGet(ctx context.Context, f *factory, o *sessionGetOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	return showPages(ctx, f, o.watch, view.Sessions(), names, getSession(f))
}

func getSession(f *factory) func(context.Context, string) (sessions.Session, error) {
	return func(ctx context.Context, name string) (sessions.Session, error) {
		s, err := call(ctx, f, sessions.Get, &sessions.Ref{Session: name})
		if err != nil {
			return sessions.Session{}, err
		}
		return *s, nil
	}
}
