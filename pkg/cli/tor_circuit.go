package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

func newTorCircuit(f *factory) *cobra.Command {
	return newNoun("circuit", []string{"circuits"}, "The circuits of tor",
		newTorCircuitList(f), newTorCircuitGet(f), newTorCircuitClose(f))
}

func newTorCircuitList(f *factory) *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List circuits, with their path and whose they are", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := view.Circuits()
			return showList(cmd.Context(), f, watch, t, t.Name, func(ctx context.Context) (*rpc.List[tor.Circuit], error) {
				l, err := call(ctx, f, tor.ListCircuits, nil)
				if err == nil {
					slices.SortStableFunc(l.Items, func(a, b tor.Circuit) int { return byID(a.ID, b.ID) })
				}
				return l, err
			})
		},
	}
	watchFlag(cmd, &watch)
	return cmd
}

// byID compares ids of tor, which are numbers, by their value.
func byID(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) }

func newTorCircuitGet(f *factory) *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "get ID…", Short: "Show circuits", Args: oneOrMore("circuit"), ValidArgsFunction: f.complete(circuitIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := f.names(args)
			if err != nil {
				return err
			}
			return showPages(cmd.Context(), f, watch, view.Circuits(), names, getCircuit(f))
		},
	}
	watchFlag(cmd, &watch)
	return cmd
}

func newTorCircuitClose(f *factory) *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use: "close ID…", Short: "Close circuits and what is open through them",
		SuggestFor: []string{"kill", "delete", "remove"},
		Long: `Close circuits. What is open through them is cut; what is opened next takes
another circuit. 'vpnctl tor newid' does so for all of a device or a user.`,
		Args: oneOrMore("circuit"), ValidArgsFunction: f.complete(circuitIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTorCircuitClose(cmd.Context(), f, dryRun, args)
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func runTorCircuitClose(ctx context.Context, f *factory, dryRun bool, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	if dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
			c, err := getCircuit(f)(ctx, name)
			return step{Action: "close", Kind: "circuit", Name: c.ID, Change: true, Detail: "cuts " + view.Count(c.Streams, "stream", "streams")}, err
		})
		return f.printPlan(steps, err)
	}
	done, err := each(ctx, names, func(ctx context.Context, name string) (outcome, error) {
		_, err := call(ctx, f, tor.CloseCircuit, &tor.CircuitRef{ID: name})
		return outcome{Action: "closed", Kind: "circuit", Name: name, Change: true}, err
	})
	if perr := f.printOutcomes(len(names), done); perr != nil {
		return perr
	}
	return err
}

func getCircuit(f *factory) func(context.Context, string) (tor.Circuit, error) {
	return func(ctx context.Context, name string) (tor.Circuit, error) {
		c, err := call(ctx, f, tor.GetCircuit, &tor.CircuitRef{ID: name})
		if err != nil {
			return tor.Circuit{}, err
		}
		return *c, nil
	}
}

func circuitIDs(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, tor.ListCircuits, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, c := range l.Items {
		out = append(out, describe(c.ID, fmt.Sprintf("%s, %s", view.CircuitState(c.State).Text, view.Count(c.Streams, "stream", "streams"))))
	}
	return out
}
