package cli

import (
	"context"
	"errors"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

func newLogsSavedList(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List saved queries", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := call(cmd.Context(), f, logs.ListSaved, nil)
			if err != nil {
				return err
			}
			return printList(f, view.SavedLogs(), l)
		},
	}
}

func newLogsSavedSave(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "save NAME QUERY…", Aliases: []string{"set"}, Short: "Save a query under a name, in place of the one before", SuggestFor: []string{"create", "add"},
		Example: `  vpnctl logs saved save refused 'service=auth level>=warn since=1d'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError(cmd, "a name and a query are needed")
			}
			return nil
		},
		ValidArgsFunction: f.firstThenQuery(savedNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runLogsSave(cmd.Context(), f, args[0], args[1:]) },
	}
}

// savedName is what vpnd takes for a name.
var savedName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func checkSavedName(name string) error {
	if savedName.MatchString(name) {
		return nil
	}
	return fault.New(fault.Invalid, "%s is no name for a saved query", strconv.Quote(name)).
		WithHint("a name is up to 64 letters, digits, _ . and -, and begins with a letter or a digit")
}

func runLogsSave(ctx context.Context, f *factory, name string, words []string) error {
	if err := checkSavedName(name); err != nil {
		return err
	}
	query, err := (&logsWindow{}).query(f, "", words)
	if err != nil {
		return err
	}
	r := &logs.SaveRequest{SavedRef: logs.SavedRef{Name: name}}
	r.Body.Query = query
	saved, err := call(ctx, f, logs.Save, r)
	if err != nil {
		return f.pointAt(query, err)
	}
	return printChanged(f, view.SavedLogs(), 1, []logs.Saved{*saved})
}

func newLogsSavedRun(f *factory) *cobra.Command {
	o := &logsOptions{}
	cmd := &cobra.Command{
		Use: "run NAME [QUERY…]", Short: "Show the lines that a saved query finds, narrowed by more terms if wanted",
		Example: `  vpnctl logs saved run refused
  vpnctl logs saved run refused user=alice -f`,
		Args: oneOrMore("saved query"), ValidArgsFunction: f.firstThenQuery(savedNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSavedName(args[0]); err != nil {
				return err
			}
			saved, err := call(cmd.Context(), f, logs.RunSaved, &logs.SavedRef{Name: args[0]})
			if err != nil {
				return err
			}
			o.scope = saved.Query
			return o.run(cmd, f, args[1:])
		},
	}
	o.flags(cmd, f)
	return cmd
}

type logsDeleteOptions struct {
	ifExists, dryRun bool
	consent          consent
}

func newLogsSavedDelete(f *factory) *cobra.Command {
	o := &logsDeleteOptions{}
	cmd := &cobra.Command{
		Use: "delete NAME…", Short: "Delete saved queries; the lines stay", SuggestFor: []string{"remove", "rm"},
		Example: `  vpnctl logs saved delete refused -y`,
		Args:    oneOrMore("saved query"), ValidArgsFunction: f.complete(savedNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runLogsDelete(cmd.Context(), f, o, args) },
	}
	cmd.Flags().BoolVar(&o.ifExists, "if-exists", false, "a query that does not exist is fine")
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, false)
	return cmd
}

func runLogsDelete(ctx context.Context, f *factory, o *logsDeleteOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	l, err := call(ctx, f, logs.ListSaved, nil)
	if err != nil {
		return err
	}
	steps, err := each(ctx, names, func(_ context.Context, name string) (step, error) { return deleteStep(l, name, o.ifExists) })
	if o.dryRun {
		return f.printPlan(steps, err)
	}
	if err != nil {
		return err
	}
	if err := f.agree(o.consent, question{what: "delete " + several("saved query", names)}); err != nil {
		return err
	}
	gone, err := each(ctx, steps, func(ctx context.Context, s step) (outcome, error) {
		done := outcome{Action: "deleted", Kind: s.Kind, Name: s.Name, Change: s.Change}
		if !s.Change {
			return done, nil
		}
		_, err := call(ctx, f, logs.DeleteSaved, &logs.SavedRef{Name: s.Name})
		if errors.Is(err, fault.NotFound) && o.ifExists {
			err = nil
		}
		return done, err
	})
	if perr := f.printOutcomes(len(names), gone); perr != nil {
		return perr
	}
	return err
}

func deleteStep(l *rpc.List[logs.Saved], name string, ifExists bool) (step, error) {
	for _, v := range l.Items {
		if v.Name == name {
			return step{Action: "delete", Kind: "saved query", Name: name, Change: true, Detail: v.Query}, nil
		}
	}
	if !ifExists {
		return step{}, fault.New(fault.NotFound, "there is no saved query %q", name).WithHint("vpnctl logs saved list")
	}
	return step{Action: "delete", Kind: "saved query", Name: name, Detail: "does not exist"}, nil
}
