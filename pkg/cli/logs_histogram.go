package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type logsHistogramOptions struct {
	by     string
	bucket bucketSize
	window logsWindow
}

func newLogsHistogram(f *factory) *cobra.Command {
	o := &logsHistogramOptions{bucket: bucketSize(time.Hour)}
	cmd := &cobra.Command{
		Use: "histogram [QUERY…]", Aliases: []string{"hist"}, Short: "Draw how many log lines there were over time",
		Long: `Draw how many log lines there were over time, split by a field if wanted. Off
a terminal each line is the start and the count, or with --by the start, the
value and its count; -o json prints the buckets.`,
		Example: `  vpnctl logs histogram --since 1d
  vpnctl logs histogram --by level --bucket 5m since=2h
  vpnctl logs histogram event=auth.refused --bucket 1d -o json`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogsHistogram(cmd.Context(), f, o, args)
		},
	}
	cmd.Flags().StringVar(&o.by, "by", "", "split by this field, such as level or service")
	cmd.Flags().Var(&o.bucket, "bucket", "how long each bucket is: 30s, 5m, 1h, 1d")
	_ = cmd.RegisterFlagCompletionFunc("by", f.complete(logFields))
	_ = cmd.RegisterFlagCompletionFunc("bucket", cobra.FixedCompletions([]string{"1m", "5m", "1h", "1d"}, cobra.ShellCompDirectiveNoFileComp))
	o.window.flags(cmd, f)
	return cmd
}

func runLogsHistogram(ctx context.Context, f *factory, o *logsHistogramOptions, words []string) error {
	query, err := o.window.query(f, "", words)
	if err != nil {
		return err
	}
	size := time.Duration(o.bucket)
	l, err := call(ctx, f, logs.Histogram, &logs.HistogramRequest{Ask: logs.Ask{Query: query}, Bucket: int(size / time.Second), By: o.by})
	if err != nil {
		return f.pointAt(query, err)
	}
	switch f.output {
	case "table", "wide":
		if !f.outTTY {
			return f.printLines(view.HistogramTabs(l.Items, o.by != ""))
		}
		if len(l.Items) == 0 {
			f.note("no lines match")
		}
		return f.printLines(view.HistogramLines(l.Items, o.by, size, logsNow(f, o.window.utc), f.width(), f.theme()))
	}
	return printList(f, view.LogBuckets(), l)
}

// bucketSize is a flag that takes a length of time in whole seconds.
type bucketSize time.Duration

func (b *bucketSize) Type() string { return "time" }

func (b *bucketSize) String() string {
	d := time.Duration(*b)
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (b *bucketSize) Set(v string) error {
	const most = 365 * 24 * time.Hour
	d, err := time.ParseDuration(v)
	if days, ok := strings.CutSuffix(v, "d"); ok {
		var n int
		if n, err = strconv.Atoi(days); n < 0 || n > 365 {
			n = 0
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < time.Second || d > most || d%time.Second != 0 {
		return fault.New(fault.Invalid, "%q is no bucket; write 30s, 5m, 1h or 1d: whole seconds, up to 365d", v)
	}
	*b = bucketSize(d)
	return nil
}
