package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

// newServiceLogs, newSessionLogs and newUserLogs are vpnctl logs with a term
// for what is named.
func newServiceLogs(f *factory) *cobra.Command {
	return newLogsOf(f, "logs NAME [QUERY…]", "service", "Show the log lines of a service", logServices,
		`  vpnctl service logs auth -f
  vpnctl service logs gateway 'level>=warn' --since 1h`,
		func(_ context.Context, name string) (string, error) { return "service=" + logsValue(name), nil })
}

func newSessionLogs(f *factory) *cobra.Command {
	return newLogsOf(f, "logs SESSION [QUERY…]", "session", "Show the log lines of a session; of a closed one by its id", sessionNames,
		`  vpnctl session logs alice/laptop
  vpnctl session logs carol -f`,
		func(ctx context.Context, name string) (string, error) {
			s, err := getSession(f)(ctx, name)
			return "session=" + logsValue(string(s.ID)), err
		})
}

func newUserLogs(f *factory) *cobra.Command {
	return newLogsOf(f, "logs NAME [QUERY…]", "user", "Show the log lines of a user, also of one that was deleted", userNames,
		`  vpnctl user logs alice --since 21:00
  vpnctl user logs bob event=auth.refused -o jsonl`,
		func(ctx context.Context, name string) (string, error) {
			u, err := call(ctx, f, users.Get, &users.Ref{User: name})
			if errors.Is(err, fault.NotFound) {
				f.note("there is no user %q now; lines about one of that name are shown", name)
				return "user=" + logsValue(name), nil
			}
			if err != nil {
				return "", err
			}
			return "user=" + logsValue(u.Username), nil
		})
}

func newLogsOf(f *factory, use, noun, short string, names candidates, example string, scope func(context.Context, string) (string, error)) *cobra.Command {
	o := &logsOptions{}
	cmd := &cobra.Command{
		Use: use, Aliases: []string{"log"}, Short: short, Example: example,
		Long: short + ".\n'vpnctl logs --help' tells how to write a query.",
		Args: oneOrMore(noun), ValidArgsFunction: f.firstThenQuery(names),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.scope, err = scope(cmd.Context(), args[0]); err != nil {
				return err
			}
			return o.run(cmd, f, args[1:])
		},
	}
	o.flags(cmd, f)
	return cmd
}
