package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

func newLogsFields(f *factory) *cobra.Command {
	w := &logsWindow{}
	cmd := &cobra.Command{
		Use: "fields [QUERY…]", Aliases: []string{"field"}, Short: "List the fields that log lines have", Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		Example: `  vpnctl logs fields service=auth since=1d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogsList(cmd.Context(), f, w, args, logs.Fields, view.LogKeys())
		},
	}
	w.flags(cmd, f)
	return cmd
}

// runLogsList prints the answer to a question that is a query and nothing more.
func runLogsList[T any](ctx context.Context, f *factory, w *logsWindow, words []string, op rpc.Op[logs.Ask, rpc.List[T]], t view.Table[T]) error {
	query, err := w.query(f, "", words)
	if err != nil {
		return err
	}
	l, err := call(ctx, f, op, &logs.Ask{Query: query})
	if err != nil {
		return f.pointAt(query, err)
	}
	return printList(f, t, l)
}
