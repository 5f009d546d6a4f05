package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
)

type logsTopOptions struct {
	limit  int
	window logsWindow
}

func newLogsTop(f *factory) *cobra.Command {
	o := &logsTopOptions{}
	cmd := &cobra.Command{
		Use: "top FIELD [QUERY…]", Short: "Show the most frequent values of a field",
		Example: `  vpnctl logs top user event=auth.refused --since 1d
  vpnctl logs top remote -n 3`,
		Args:              oneOrMore("field"),
		ValidArgsFunction: f.firstThenQuery(logFields),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogsTop(cmd.Context(), f, o, args[0], args[1:])
		},
	}
	cmd.Flags().IntVarP(&o.limit, "limit", "n", 10, "how many values, up to 1000")
	o.window.flags(cmd, f)
	return cmd
}

func runLogsTop(ctx context.Context, f *factory, o *logsTopOptions, field string, words []string) error {
	if o.limit < 1 {
		return fault.New(fault.Invalid, "--limit %d is too small", o.limit)
	}
	if err := checkFields(field); err != nil {
		return err
	}
	query, err := o.window.query(f, "", words)
	if err != nil {
		return err
	}
	l, err := call(ctx, f, logs.Top, &logs.TopRequest{Ask: logs.Ask{Query: query}, Field: field, Limit: o.limit})
	if err != nil {
		return f.pointAt(query, err)
	}
	return printGroups(f, []string{field}, l)
}
