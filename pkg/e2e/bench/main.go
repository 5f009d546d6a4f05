//go:build linux

// Command bench measures vpnd and prints one table: each figure beside the
// floor that was measured in the same run, so that the ratio means something on
// any machine. `make bench` runs it; docs/performance.md explains every row.
//
// It owns the load, the floors and the table. It builds its own labs, bounds
// every load in time and removes everything at the end, also when it is
// interrupted. A goal that is missed is a line in the table; the exit status
// tells only whether everything could be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:])) }

// options are what the command line says.
type options struct {
	bin   string // folder of vpnd, vpnctl and vpn
	dir   string // existing folder on a real disk
	run   *regexp.Regexp
	short bool
	json  string
}

// pick shortens a run: full, or brief with -short.
func pick[T any](o options, full, brief T) T {
	if o.short {
		return brief
	}
	return full
}

func run(args []string) int {
	if status, mine := runHelper(args); mine {
		return status
	}
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	// The load shares the cores with what it measures: collect seldom.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// From the second signal on the default holds, should cleaning up hang.
	defer context.AfterFunc(ctx, stop)()

	err = benchmark(ctx, o)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: interrupted; everything was removed")
		return 130
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

func parse(args []string) (options, error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var o options
	var pattern string
	fs.StringVar(&o.bin, "bin", "bin", "folder of vpnd, vpnctl and vpn")
	fs.StringVar(&o.dir, "dir", "/var/tmp", "folder on a real disk, where databases are written during the run")
	fs.StringVar(&pattern, "run", "", "measure only rows whose name fits this regular expression: "+strings.Join(rowNames(), ", "))
	fs.BoolVar(&o.short, "short", false, "fewer samples and 1,000 devices instead of 10,000")
	fs.StringVar(&o.json, "json", "", "also write every sample to this file")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	var err error
	if o.run, err = regexp.Compile(pattern); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	if os.Geteuid() != 0 {
		return o, errors.New("only root can make network namespaces: run it with sudo")
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return o, err
	}
	if _, err := os.Stat(filepath.Join(o.bin, "vpnd")); err != nil {
		return o, fmt.Errorf("%w (run 'make build')", err)
	}
	return o, nil
}

// row is one measurement, which makes one line of the table or a few.
type row struct {
	name string
	run  func(context.Context, *suite) error
}

// suite is one vpnd and what is measured on it.
type suite struct {
	options
	*world
	report *report
	people population // who has signed in so far
	tmp    string     // folder of this run on the disk
	floors *floors    // nil until a row needs them
	few    *connects  // the first connects, of devices that were nearly alone
	onion  *onion     // nil where there is no Tor network
	logs   *logBench  // nil where no log files are read
}

// group is a list of rows that share a vpnd.
type group struct {
	config  func(base string) string
	prepare func(context.Context, *suite) (end func() error, err error) // nil: nothing to do
	rows    []row
}

// groups is every row, in the order in which they are measured. The first group
// signs in ten thousand devices, so its passwords are cheap; the second has the
// configuration that people get; the third has a Tor network; the fourth reads log
// files that are made for it.
func groups() []group {
	return []group{
		{config: cheapPasswords, rows: []row{
			{"initiate", initiateOne},
			{"heartbeat", heartbeatOne},
			{"heartbeat-32", heartbeatMany},
			{"initiate-16", initiateMany},
			{"initiate-10k", initiateCrowded},
		}},
		{config: func(base string) string { return base }, rows: []row{
			{"start", startUp},
			{"memory", memoryIdle},
			{"login", loginMany},
			{"tunnel", tunnel},
			{"kill", killEach},
		}},
		{config: cheapPasswords, prepare: prepareTor, rows: []row{
			{"tor-swap", torSwap},
			{"tor-page", torFirstPage},
			{"tor-down", torDown},
			{"tor-cold", torCold},
			{"tor-attach", torAttach},
			{"tor-stream", torStream},
			{"tor-newid", torNewID},
		}},
		{config: func(base string) string { return base }, prepare: prepareLogs, rows: []row{
			{"logs-ingest", logsIngest},
			{"logs-rows", logsRows},
			{"logs-ask", logsAsk},
			{"logs-busy", logsBusy},
			{"logs-follow", logsFollow},
			{"logs-kept", logsKept},
			{"logs-remove", logsRemove},
		}},
	}
}

func rowNames() []string {
	var out []string
	for _, g := range groups() {
		for _, r := range g.rows {
			out = append(out, r.name)
		}
	}
	return out
}

func benchmark(ctx context.Context, o options) error {
	began := time.Now()
	rep := newReport(o)
	var err error
	if rep.Busy, err = othersUse(ctx); err != nil {
		return err
	}
	var failed []string
	for _, g := range groups() {
		var rows []row
		for _, r := range g.rows {
			if o.run.MatchString(r.name) {
				rows = append(rows, r)
			}
		}
		if len(rows) == 0 {
			continue
		}
		bad, err := runGroup(ctx, o, rep, g, rows)
		failed = append(failed, bad...)
		if err != nil {
			return err
		}
	}
	if len(rep.Rows) == 0 {
		return errors.New("no row fits -run: there are " + strings.Join(rowNames(), ", "))
	}
	if rep.After, err = othersUse(ctx); err != nil {
		return err
	}
	rep.Seconds = time.Since(began).Seconds()
	rep.print(os.Stdout)
	if o.json != "" {
		if err := rep.write(o.json); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(failed, ", "))
	}
	return nil
}

// runGroup measures rows on one vpnd. A row that fails is told in the table and
// the next one is tried; an error means that there is no point in going on.
func runGroup(ctx context.Context, o options, rep *report, g group, rows []row) (failed []string, err error) {
	tmp, err := os.MkdirTemp(o.dir, "vpnd-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	w, err := newWorld(ctx, o.bin, tmp, g.config)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	s := &suite{options: o, world: w, report: rep, tmp: tmp}
	defer func() { err = errors.Join(err, s.floors.close()) }()
	if g.prepare != nil {
		end, failure := g.prepare(ctx, s)
		if failure != nil {
			return nil, failure
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	for _, r := range rows {
		progress(os.Stderr, "%s", r.name)
		if err := r.run(ctx, s); err != nil {
			if ctx.Err() != nil {
				return failed, ctx.Err()
			}
			failed = append(failed, r.name)
			rep.add(result{Name: r.name, What: r.name, Err: firstLine(err)})
			progress(os.Stderr, "%s failed: %v", r.name, err)
		}
	}
	return failed, nil
}

func progress(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "bench: "+format+"\n", args...)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
