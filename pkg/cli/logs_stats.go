package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type logsStatsOptions struct {
	by     []string
	limit  int
	window logsWindow
}

func newLogsStats(f *factory) *cobra.Command {
	o := &logsStatsOptions{}
	cmd := &cobra.Command{
		Use: "stats --by FIELD[,FIELD…] [QUERY…]", Short: "Count log lines by the values of up to four fields",
		Example: `  vpnctl logs stats --by service,level since=1d
  vpnctl logs stats --by user 'event=auth.refused' -o json`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		RunE: func(cmd *cobra.Command, args []string) error { return runLogsStats(cmd.Context(), f, o, args) },
	}
	cmd.Flags().StringSliceVar(&o.by, "by", nil, "the fields, such as service,level")
	cmd.Flags().IntVarP(&o.limit, "limit", "n", 1000, "print the so many most frequent, up to 10000")
	_ = cmd.RegisterFlagCompletionFunc("by", f.complete(logFields))
	o.window.flags(cmd, f)
	return cmd
}

func runLogsStats(ctx context.Context, f *factory, o *logsStatsOptions, words []string) error {
	if len(o.by) == 0 || len(o.by) > 4 {
		return fault.New(fault.Invalid, "--by takes one to four fields, not %d", len(o.by)).WithHint("such as --by service,level; 'vpnctl logs fields' lists them")
	}
	if o.limit < 1 {
		return fault.New(fault.Invalid, "--limit %d is too small", o.limit)
	}
	if err := checkFields(o.by...); err != nil {
		return err
	}
	query, err := o.window.query(f, "", words)
	if err != nil {
		return err
	}
	l, err := call(ctx, f, logs.Stats, &logs.StatsRequest{Ask: logs.Ask{Query: query}, By: o.by, Limit: o.limit})
	if err != nil {
		return f.pointAt(query, err)
	}
	return printGroups(f, o.by, l)
}

func checkFields(fields ...string) error {
	for _, f := range fields {
		if f == "" {
			return fault.New(fault.Invalid, "the name of a field is empty").WithHint("'vpnctl logs fields' lists them")
		}
	}
	return nil
}

// printGroups prints counts by fields; a terminal has them drawn too.
func printGroups(f *factory, by []string, l *rpc.List[logs.Group]) error {
	most := int64(0)
	for _, g := range l.Items {
		most = max(most, g.Count)
	}
	if f.output != "json" && f.output != "yaml" {
		l.Total = len(l.Items) // there is no --limit 0 here to speak of
	}
	return printList(f, view.LogGroups(by, f.outTTY, most), l)
}
