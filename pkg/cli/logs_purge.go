package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type logsPurgeOptions struct {
	dryRun  bool
	window  logsWindow
	consent consent
}

func newLogsPurge(f *factory) *cobra.Command {
	o := &logsPurgeOptions{}
	cmd := &cobra.Command{
		Use: "purge QUERY…", Short: "Remove the log lines that match, for good",
		Long: `Remove the log lines that match a query, for good. What would go is counted and
shown first, and agreed to by typing purge, or in a script by
--accept-risk=destroy-data. A query that says nothing is refused.`,
		Example: `  vpnctl logs purge user=carol --dry-run
  vpnctl logs purge 'service=gateway event=ping' --until 7d --accept-risk=destroy-data`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		RunE: func(cmd *cobra.Command, args []string) error { return runLogsPurge(cmd.Context(), f, o, args) },
	}
	o.window.flags(cmd, f)
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, true)
	return cmd
}

func runLogsPurge(ctx context.Context, f *factory, o *logsPurgeOptions, words []string) error {
	query, err := o.window.query(f, "", words)
	if err != nil {
		return err
	}
	if strings.Trim(query, " \t\r\n\"") == "" {
		return fault.New(fault.Invalid, "purge needs a query: nothing never means everything").WithHint("such as 'vpnctl logs purge user=carol --dry-run'")
	}
	r := &logs.PurgeRequest{}
	r.Body.Query, r.Body.DryRun = query, true
	would, err := call(ctx, f, logs.Purge, r)
	if err != nil {
		return f.pointAt(query, err)
	}
	if o.dryRun {
		if err := printPurged(f, would); err != nil || would.Rows == 0 {
			return err
		}
		return quietExit{fault.Differs}
	}
	if would.Rows == 0 {
		would.DryRun = false
		return printPurged(f, would)
	}
	days := view.Count(len(would.Days), "day", "days")
	if f.inTTY && f.errTTY && !slices.Contains(o.consent.accept, string(destroyData)) { // a question follows
		for _, d := range purgedDays(would) {
			fmt.Fprintf(f.err, "%s  %s\n", view.Clean(d.Day), view.Count(int(d.Rows), "line", "lines"))
		}
	}
	lines := view.Count(int(would.Rows), "log line", "log lines")
	q := question{what: "purge " + lines, typed: "purge", risks: map[risk]string{destroyData: "removes " + lines + " of " + days + " for good"}}
	if err := f.agree(o.consent, q); err != nil {
		return err
	}
	r.Body.DryRun = false
	done, err := call(ctx, f, logs.Purge, r)
	if err != nil {
		return f.pointAt(query, err)
	}
	return printPurged(f, done)
}

func purgedDays(p *logs.Purged) []view.PurgedDay {
	days := make([]view.PurgedDay, len(p.Days))
	for i, d := range p.Days {
		days[i] = view.PurgedDay{Day: d.Day, Rows: d.Rows}
	}
	return days
}

// printPurged prints the days; people are told the sum in a sentence.
func printPurged(f *factory, p *logs.Purged) error {
	switch f.output {
	case "json", "yaml":
		return f.printObject(p)
	case "jsonl":
		return f.printLine(p)
	}
	if len(p.Days) > 0 {
		if err := printItems(f, view.PurgedDays(), purgedDays(p)); err != nil {
			return err
		}
	}
	done := "removed"
	if p.DryRun {
		done = "would be removed"
	}
	f.note("%s %s", view.Count(int(p.Rows), "line", "lines"), done)
	return nil
}
