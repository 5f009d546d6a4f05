package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

const (
	logsPage    = 10_000 // lines of one call at most
	logsLimit   = 100    // lines that are shown when nobody says how many
	followLimit = 10     // before what is new
)

const logsLong = `Show log lines of all services, the newest at the bottom. A query is terms that
must all hold:

  refused "sign-in refused" auth*    words, a phrase, the beginning of a word
  user=alice,bob  event=session.*    a field is one of these, or begins so
  level>=warn  dur_ms>200            levels by rank, numbers by size
  session=*                          a field is there
  !event=ping  event!=ping           not so
  since=1h  until=2026-01-31         also yesterday, 21:30, RFC 3339

Quote the query for the shell where it has spaces, quotes, <, > or !. After --
the first word may be the name of a command. Times in a query are UTC; --since
and --until take the time shown here. Lines are cut to the terminal; -o wide
wraps them and shows ids. -o raw prints the fields as they were written, one
object per line.`

const logsExample = `  vpnctl logs                                             the newest 100 lines
  vpnctl logs user=alice since=1h
  vpnctl logs 'level>=warn since=1h' -o jsonl | jq .message
  vpnctl logs 'service=auth !event=ping "sign-in refused"'
  vpnctl logs -f 'service=auth,users level>=warn'         stay, show new lines
  vpnctl logs --since 15:00 --until 15:30 'dur_ms>200'
  vpnctl logs -n 0 user=alice -o raw                      all of them
  vpnctl logs -- count                                    the word count`

// logsOptions are what every way to look at lines has.
type logsOptions struct {
	scope  string // terms that a command adds
	limit  int
	follow bool
	window logsWindow
}

func newLogs(f *factory) *cobra.Command {
	o := &logsOptions{}
	cmd := &cobra.Command{
		Use: "logs [QUERY…]", Aliases: []string{"log"}, Short: "Find log lines, or with -f show new ones",
		Long: logsLong, Example: logsExample, Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, f, args) },
	}
	o.flags(cmd, f)
	cmd.AddCommand(newLogsCount(f), newLogsStats(f), newLogsTop(f), newLogsHistogram(f), newLogsFields(f), newLogsServices(f),
		newNoun("saved", nil, "Queries with a name", newLogsSavedList(f), newLogsSavedSave(f), newLogsSavedRun(f), newLogsSavedDelete(f)),
		newLogsExport(f), newLogsStatus(f), newLogsPurge(f))
	return cmd
}

func (o *logsOptions) flags(cmd *cobra.Command, f *factory) {
	allowRaw(cmd)
	cmd.Flags().IntVarP(&o.limit, "limit", "n", logsLimit, "show the newest so many; 0 shows all (with -f the default is 10, and 0 shows none)")
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "stay and show new lines")
	o.window.flags(cmd, f)
}

// run is runLogs with what only cobra knows.
func (o *logsOptions) run(cmd *cobra.Command, f *factory, words []string) error {
	if o.follow && !cmd.Flags().Changed("limit") {
		o.limit = followLimit
	}
	return runLogs(cmd.Context(), f, o, words)
}

func runLogs(ctx context.Context, f *factory, o *logsOptions, words []string) error {
	if o.limit < 0 {
		return fault.New(fault.Invalid, "--limit %d is negative", o.limit)
	}
	query, err := o.window.query(f, o.scope, words)
	if err != nil {
		return err
	}
	if err := refuseOutput(ctx, f); err != nil {
		return err
	}
	switch {
	case o.follow:
		err = followLogs(ctx, f, o, query)
	case o.limit == 0 && f.output != "json" && f.output != "yaml":
		err = allLogs(ctx, f, o, query)
	default:
		err = newestLogs(ctx, f, o, query)
	}
	return f.pointAt(query, err)
}

// newestLogs shows the newest lines, the last of them at the bottom.
func newestLogs(ctx context.Context, f *factory, o *logsOptions, query string) error {
	l, more, err := fetchLogs(ctx, f, query, o.limit)
	if err != nil {
		return err
	}
	if err := o.window.printer(f).list(l); err != nil {
		return err
	}
	if more {
		f.hint("only the newest %d lines are shown; -n 0 shows all", len(l.Items))
	}
	return nil
}

// fetchLogs gives the newest lines that match (limit 0: all), the oldest
// first, and whether there are older ones.
func fetchLogs(ctx context.Context, f *factory, query string, limit int) (*rpc.List[logs.Record], bool, error) {
	req := &logs.QueryRequest{Ask: logs.Ask{Query: query}, Order: "newest"}
	out := &rpc.List[logs.Record]{Items: []logs.Record{}}
	for {
		req.Limit = logsPage
		if limit > 0 {
			req.Limit = min(logsPage, limit-len(out.Items))
		}
		page, err := call(ctx, f, logs.Query, req)
		if err != nil {
			return nil, false, err
		}
		out.Items = append(out.Items, page.Items...)
		req.After = page.Next
		if page.Next == "" || len(page.Items) == 0 || limit > 0 && len(out.Items) >= limit {
			slices.Reverse(out.Items)
			out.Total = len(out.Items)
			return out, page.Next != "", nil
		}
	}
}

// allLogs shows every line from the oldest on, a page at a time.
func allLogs(ctx context.Context, f *factory, o *logsOptions, query string) error {
	p := o.window.printer(f)
	req := &logs.QueryRequest{Ask: logs.Ask{Query: query}, Limit: logsPage, Order: "oldest"}
	for shown := 0; ; {
		page, err := call(ctx, f, logs.Query, req)
		if err != nil {
			return err
		}
		if err := p.print(page.Items); err != nil {
			return err
		}
		shown += len(page.Items)
		if req.After = page.Next; page.Next == "" || len(page.Items) == 0 {
			if shown == 0 && f.outTTY {
				f.note("no lines match")
			}
			return nil
		}
	}
}

// logsNow is now, where times are shown.
func logsNow(f *factory, utc bool) time.Time {
	if utc {
		return f.now().UTC()
	}
	return f.now()
}
