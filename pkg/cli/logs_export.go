package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type logsExportOptions struct {
	format, out string
	force       bool
	window      logsWindow
}

// exported is what an export to a file has done.
type exported struct {
	File   string `json:"file"`
	Format string `json:"format"`
	Lines  int64  `json:"lines"`
	Bytes  int64  `json:"bytes"`
}

func newLogsExport(f *factory) *cobra.Command {
	o := &logsExportOptions{}
	cmd := &cobra.Command{
		Use: "export [QUERY…]", Short: "Write all log lines that match, the oldest first",
		Long: `Write all log lines that match, the oldest first, to standard output or a file;
any number of them. A file is there when it is complete, and not before. In
CSV a cell that a spreadsheet would run begins with ' instead.`,
		Example: `  vpnctl logs export since=1d > day.jsonl
  vpnctl logs export user=alice --format csv --out alice.csv
  vpnctl logs export --until 2026-03-01 --out old.jsonl --force`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		RunE: func(cmd *cobra.Command, args []string) error { return runLogsExport(cmd.Context(), f, o, args) },
	}
	cmd.Flags().StringVar(&o.format, "format", "jsonl", "jsonl or csv")
	cmd.Flags().StringVar(&o.out, "out", "", "write to this file")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace the file")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(exportFormats(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename("out")
	o.window.bounds(cmd, f)
	return cmd
}

func exportFormats() []string { return []string{"jsonl", "csv"} }

func runLogsExport(ctx context.Context, f *factory, o *logsExportOptions, words []string) error {
	if !slices.Contains(exportFormats(), o.format) {
		return fault.New(fault.Invalid, "--format %q is not known", o.format).WithHint("use jsonl or csv")
	}
	query, err := o.window.query(f, "", words)
	if err != nil {
		return err
	}
	if o.out == "" {
		if err := refuseOutput(ctx, f); err != nil {
			return err
		}
		_, err := export(ctx, f, query, o.format, f.out, f.outTTY)
		return f.pointAt(query, err)
	}
	file, err := newExportFile(ctx, f, o.out, o.force)
	if err != nil {
		return err
	}
	defer file.discard()
	done, err := export(ctx, f, query, o.format, file, false)
	if err != nil {
		return f.pointAt(query, err)
	}
	if err := file.keep(); err != nil {
		return err
	}
	done.File, done.Format = o.out, o.format
	if f.output == "table" || f.output == "wide" {
		f.note("%s, %s, in %s", view.Count(int(done.Lines), "line", "lines"), view.Bytes(done.Bytes), done.File)
		return nil
	}
	return printOne(f, view.Table[exported]{Noun: "export", Name: func(e exported) string { return e.File }}, done)
}

// lineWriter writes lines in a format.
type lineWriter interface {
	write(r logs.Record) error
	flush() error
}

// export writes what matches to w. A stream does not tell its end from that
// of a vpnd that stops, so an export is complete when it has come to the line
// that was the newest at its beginning.
func export(ctx context.Context, f *factory, query, format string, w io.Writer, terminal bool) (exported, error) {
	var done exported
	conn, err := f.conn()
	if err != nil {
		return done, err
	}
	newest, err := call(ctx, f, logs.Query, &logs.QueryRequest{Ask: logs.Ask{Query: query}, Limit: 1, Order: "newest"})
	if err != nil {
		return done, err
	}
	last := ""
	if len(newest.Items) > 0 {
		last = newest.Items[0].ID
	}
	counted := &countingWriter{w: w}
	buffered := bufio.NewWriterSize(counted, 64<<10)
	lines := jsonLines(buffered)
	if format == "csv" {
		if lines, err = csvLines(buffered, terminal); err != nil {
			return done, err
		}
	}
	p := f.progress(!terminal)
	defer p.end()
	complete := last == ""
	err = logs.Export.Follow(ctx, conn, &logs.Ask{Query: query}, func(r logs.Record) error {
		done.Lines++
		complete = complete || r.ID == last
		p.show(func() string {
			return fmt.Sprintf("%s, %s, up to %s", view.Count(int(done.Lines), "line", "lines"), view.Bytes(counted.n), r.Time.In(f.now().Location()).Format(time.DateTime))
		})
		return lines.write(r)
	})
	ferr := lines.flush()
	if ferr == nil {
		ferr = buffered.Flush()
	}
	done.Bytes = counted.n
	switch {
	case ctx.Err() != nil:
		return done, ctx.Err()
	case err != nil && !errors.Is(err, rpc.ErrEnded):
		return done, err
	case ferr != nil:
		return done, ferr
	case !complete:
		return done, fault.New(fault.Unavailable, "vpnd ended the export after %s, before its end", view.Count(int(done.Lines), "line", "lines")).WithHint("run it again")
	}
	return done, nil
}

// countingWriter knows how much was written.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// progressEvery keeps progress from costing more than the work.
const progressEvery = 200 * time.Millisecond

// progress is a line on a terminal that is written over.
type progress struct {
	f     *factory
	on    bool
	shown bool
	next  time.Time
}

// progress starts a line of progress; wanted is false where it would mix with
// data.
func (f *factory) progress(wanted bool) *progress {
	on := wanted && f.errTTY && !f.quiet && (f.output == "table" || f.output == "wide")
	return &progress{f: f, on: on, next: time.Now().Add(progressEvery)}
}

func (p *progress) show(text func() string) {
	if !p.on || time.Now().Before(p.next) {
		return
	}
	p.shown, p.next = true, time.Now().Add(progressEvery)
	fmt.Fprint(p.f.err, "\r\x1b[K"+view.Clean(text()))
}

func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.f.err, "\r\x1b[K")
	}
}
