package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// isolation is how streams are kept apart.
type isolation struct {
	Isolation string `json:"isolation"`
}

func isolations() view.Table[isolation] {
	return view.Table[isolation]{
		Noun: "isolation", Name: func(v isolation) string { return v.Isolation },
		Columns: []view.Column[isolation]{
			{Title: "ISOLATION", Cell: func(v isolation, _ time.Time) view.Cell { return view.Or(v.Isolation) }},
		},
	}
}

func isolationKinds() []string { return []string{"device", "destination"} }

func newTorIsolation(f *factory) *cobra.Command {
	return newNoun("isolation", nil, "How streams are kept apart", newTorIsolationGet(f), newTorIsolationSet(f))
}

func newTorIsolationGet(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "get", Short: "Show how streams are kept apart", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := getTor(cmd.Context(), f)
			if err != nil {
				return err
			}
			return printOne(f, isolations(), isolation{s.Isolation})
		},
	}
}

func newTorIsolationSet(f *factory) *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use: "set KIND", Short: "Set how streams are kept apart, from now on",
		Long: `Set how streams that are opened from now on are kept apart:

  device       no two devices share a circuit
  destination  besides, a device takes another circuit for every destination;
               that is slower, and more load for the Tor network`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, "one kind is wanted: %s", strings.Join(isolationKinds(), " or "))
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return isolationKinds(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTorIsolationSet(cmd.Context(), f, dryRun, args[0])
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func runTorIsolationSet(ctx context.Context, f *factory, dryRun bool, word string) error {
	kind := strings.TrimPrefix(word, "per-")
	if !slices.Contains(isolationKinds(), kind) {
		return fault.New(fault.Invalid, "streams cannot be isolated by %q", word).WithHint("use one of %s", strings.Join(isolationKinds(), ", "))
	}
	if dryRun {
		s, err := getTor(ctx, f)
		if err != nil {
			return err
		}
		plan := step{Action: "set", Kind: "isolation", Name: kind, Change: s.Isolation != kind, Detail: "is " + s.Isolation}
		if plan.Change {
			plan.Detail = s.Isolation + " → " + kind
		}
		return f.printPlan([]step{plan}, nil)
	}
	r := &tor.IsolationRequest{}
	r.Body.Isolation = kind
	s, err := call(ctx, f, tor.SetIsolation, r)
	if err != nil {
		return err
	}
	return printChanged(f, isolations(), 1, []isolation{{s.Isolation}})
}
