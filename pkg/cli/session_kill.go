package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/view"
)

type sessionKillOptions struct{ dryRun bool }

func newSessionKill(f *factory) *cobra.Command {
	o := &sessionKillOptions{}
	cmd := &cobra.Command{
		Use: "kill SESSION…", Short: "Close sessions; returns after their peers are gone",
		SuggestFor: []string{"close", "delete", "disconnect"},
		Long: `Close sessions and return after their peers are gone. The device may connect
again; 'vpnctl user suspend' and 'vpnctl device delete' keep it out.`,
		Args: oneOrMore("session"), ValidArgsFunction: f.complete(sessionNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runSessionKill(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runSessionKill(ctx context.Context, f *factory, o *sessionKillOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	if o.dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
			s, err := getSession(f)(ctx, name)
			return step{
				Action: "close", Kind: "session", Name: view.DeviceName(s.Username, s.DeviceName), ID: string(s.ID),
				Change: s.State != sessions.Closed, Detail: "is " + string(s.State),
			}, err
		})
		return f.printPlan(steps, err)
	}
	closed, err := each(ctx, names, func(ctx context.Context, name string) (sessions.Session, error) {
		s, err := call(ctx, f, sessions.Kill, &sessions.Ref{Session: name})
		if err != nil {
			return sessions.Session{}, err
		}
		return *s, nil
	})
	if perr := printChanged(f, view.Sessions(), len(names), closed); perr != nil {
		return perr
	}
	return err
}
