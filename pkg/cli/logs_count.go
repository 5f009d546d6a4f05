package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/view"
)

func newLogsCount(f *factory) *cobra.Command {
	w := &logsWindow{}
	cmd := &cobra.Command{
		Use: "count [QUERY…]", Short: "Count log lines", Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		Example: `  vpnctl logs count 'level>=error since=1d'
  vpnctl logs count user=alice --since today`,
		RunE: func(cmd *cobra.Command, args []string) error { return runLogsCount(cmd.Context(), f, w, args) },
	}
	w.flags(cmd, f)
	return cmd
}

func runLogsCount(ctx context.Context, f *factory, w *logsWindow, words []string) error {
	query, err := w.query(f, "", words)
	if err != nil {
		return err
	}
	n, err := call(ctx, f, logs.Count, &logs.Ask{Query: query})
	if err != nil {
		return f.pointAt(query, err)
	}
	if f.output == "table" || f.output == "wide" {
		return f.printLines([]string{strconv.FormatInt(n.Count, 10)})
	}
	return printOne(f, view.LogNumbers(), *n)
}
