package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/view"
)

func newLogsStatus(f *factory) *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the log service does: days, files, how far behind", Args: noArgs,
		Example: `  vpnctl logs status
  vpnctl logs status -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLogsStatus(cmd.Context(), f, watch) },
	}
	watchFlag(cmd, &watch)
	return cmd
}

func runLogsStatus(ctx context.Context, f *factory, watch bool) error {
	fetch := func(ctx context.Context) (logs.Status, error) {
		s, err := call(ctx, f, logs.GetStatus, nil)
		if err != nil {
			return logs.Status{}, err
		}
		return *s, nil
	}
	switch {
	case watch && f.redraws():
		return f.redraw(ctx, func(ctx context.Context) ([]string, error) {
			s, err := fetch(ctx)
			if err != nil {
				return nil, err
			}
			return logStatusLines(f, s), nil
		})
	case watch:
		return appendChanges(ctx, f, view.LogStatus(0).Name, func(ctx context.Context) ([]logs.Status, error) {
			s, err := fetch(ctx)
			return []logs.Status{s}, err
		}, func(s logs.Status) error { return printLogStatus(f, s) }, func(s logs.Status) logs.Status { return s })
	}
	s, err := fetch(ctx)
	if err != nil {
		return err
	}
	return printLogStatus(f, s)
}

func printLogStatus(f *factory, s logs.Status) error {
	if f.output != "table" && f.output != "wide" {
		return printOne(f, view.LogStatus(len(s.Problems)), s)
	}
	return f.printLines(logStatusLines(f, s))
}

// logStatusLines is the state, then a table of the days and one of the files.
func logStatusLines(f *factory, s logs.Status) []string {
	lines := page(f, view.LogStatus(len(s.Problems)), s, false)
	days, files := rows(f, view.LogDays(), s.Days), rows(f, view.LogFiles(), s.Files)
	if f.outTTY {
		for _, more := range [][]string{days, files} {
			if len(more) > 1 {
				lines = append(append(lines, ""), more...)
			}
		}
		return lines
	}
	for _, d := range days {
		lines = append(lines, "day\t"+d)
	}
	for _, v := range files {
		lines = append(lines, "file\t"+v)
	}
	return lines
}
