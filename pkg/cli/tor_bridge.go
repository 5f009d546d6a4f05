package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

func newTorBridge(f *factory) *cobra.Command {
	return newNoun("bridge", []string{"bridges"}, "The bridges, for where Tor is blocked or should not be seen",
		newTorBridgeList(f), newTorBridgeAdd(f), newTorBridgeRemove(f), newTorBridgeTest(f),
		newTorBridgeUse(f, true), newTorBridgeUse(f, false))
}

func newTorBridgeList(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List bridges", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorBridgeList(cmd.Context(), f) },
	}
}

func runTorBridgeList(ctx context.Context, f *factory) error {
	l, err := call(ctx, f, tor.ListBridges, nil)
	if err != nil {
		return err
	}
	if err := printList(f, view.Bridges(), l); err != nil || len(l.Items) == 0 {
		return err
	}
	if f.output == "table" || f.output == "wide" {
		if s, err := getTor(ctx, f); err == nil && !s.Bridges {
			f.hint("they are not in use: vpnctl tor bridge enable")
		}
	}
	return nil
}

func newTorBridgeAdd(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "add LINE", Short: "Add a bridge; - reads lines from standard input",
		Long: `Add a bridge. The line is what https://bridges.torproject.org gives, with or
without the word Bridge, quoted or not. It is used after 'vpnctl tor bridge
enable'.`,
		Example: `  vpnctl tor bridge add obfs4 192.0.2.7:443 FINGERPRINT cert=… iat-mode=0
  vpnctl tor bridge add - < bridges.txt`,
		Args: oneOrMore("bridge"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runTorBridgeAdd(cmd.Context(), f, args) },
	}
}

func runTorBridgeAdd(ctx context.Context, f *factory, args []string) error {
	lines := []string{strings.Join(args, " ")}
	if slices.Equal(args, []string{"-"}) {
		var err error
		if lines, err = f.names(args); err != nil {
			return err
		}
		if len(lines) == 0 {
			return fault.New(fault.Invalid, "there is no line on standard input").WithHint("https://bridges.torproject.org gives bridge lines")
		}
	}
	added, err := each(ctx, lines, func(ctx context.Context, line string) (tor.Bridge, error) {
		r := &tor.BridgeRequest{}
		r.Body.Line = line
		b, err := call(ctx, f, tor.AddBridge, r)
		if err != nil {
			return tor.Bridge{}, err
		}
		return *b, nil
	})
	if perr := printChanged(f, view.Bridges(), len(lines), added); perr != nil {
		return perr
	}
	return err
}

func newTorBridgeRemove(f *factory) *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use: "remove ID…", Aliases: []string{"rm"}, Short: "Remove bridges", SuggestFor: []string{"delete"},
		Args: oneOrMore("bridge"), ValidArgsFunction: f.complete(bridgeIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTorBridgeRemove(cmd.Context(), f, dryRun, args)
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func runTorBridgeRemove(ctx context.Context, f *factory, dryRun bool, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	plan, err := bridgePlan(ctx, f, names)
	if dryRun {
		return f.printPlan(plan, err)
	}
	if err != nil {
		return err
	}
	done, err := each(ctx, plan, func(ctx context.Context, s step) (outcome, error) {
		_, err := call(ctx, f, tor.RemoveBridge, &tor.BridgeRef{ID: s.ID})
		return outcome{Action: "removed", Kind: "bridge", Name: s.Name, ID: s.ID, Change: true}, err
	})
	if perr := f.printOutcomes(len(names), done); perr != nil {
		return perr
	}
	return err
}

// bridgePlan finds the bridges that are named by their ids or the beginnings
// of them.
func bridgePlan(ctx context.Context, f *factory, names []string) ([]step, error) {
	l, err := call(ctx, f, tor.ListBridges, nil)
	if err != nil {
		return nil, err
	}
	return each(ctx, names, func(_ context.Context, name string) (step, error) {
		var found []tor.Bridge
		for _, b := range l.Items {
			if name != "" && strings.HasPrefix(b.ID, name) {
				found = append(found, b)
			}
		}
		switch len(found) {
		case 0:
			return step{}, fault.New(fault.NotFound, "there is no bridge %q", name).WithHint("vpnctl tor bridge list")
		case 1:
			return step{Action: "remove", Kind: "bridge", Name: found[0].ID, ID: found[0].ID, Change: true, Detail: found[0].Line}, nil
		}
		return step{}, fault.New(fault.Conflict, "several bridges have an id that begins with %s", name).WithHint("vpnctl tor bridge list")
	})
}

func newTorBridgeTest(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "test ID…", Short: "Try to reach bridges",
		Long: `Try to reach bridges, one after the other: a tor of its own has to get through
the handshake with each, which takes up to 40 s. Lane tor is not touched. Exit
9 when one was not reached.`,
		Args: oneOrMore("bridge"), ValidArgsFunction: f.complete(bridgeIDs),
		RunE: func(cmd *cobra.Command, args []string) error { return runTorBridgeTest(cmd.Context(), f, args) },
	}
}

func runTorBridgeTest(ctx context.Context, f *factory, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	plan, failed := bridgePlan(ctx, f, names)
	tests, err := each(ctx, plan, func(ctx context.Context, s step) (view.BridgeTest, error) {
		r, err := call(ctx, f, tor.TestBridge, &tor.BridgeRef{ID: s.ID})
		if err != nil {
			return view.BridgeTest{}, err
		}
		return view.BridgeTest{ID: s.ID, BridgeTest: *r}, nil
	})
	if perr := printChanged(f, view.BridgeTests(), len(names), tests); perr != nil {
		return perr
	}
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(tests, func(t view.BridgeTest) bool { return !t.OK }) {
		return quietExit{fault.Unhealthy}
	}
	return nil
}

type torBridgeUseOptions struct {
	dryRun, wait bool
	consent      consent
}

func newTorBridgeUse(f *factory, enable bool) *cobra.Command {
	o := &torBridgeUseOptions{}
	cmd := &cobra.Command{
		Use: "enable", Short: "Reach Tor through bridges only", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorBridgeUse(cmd.Context(), f, o, enable) },
	}
	dryRunFlag(cmd, &o.dryRun)
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the lane is up, as long as --timeout says (default 60s)")
	if !enable {
		cmd.Use, cmd.Short = "disable", "Reach Tor without bridges"
		cmd.Long = `Reach Tor without bridges. Who watches this host's line can tell then that it
uses Tor, which is asked about. The list of bridges is kept.`
		o.consent.flags(cmd, false)
	}
	return cmd
}

func runTorBridgeUse(ctx context.Context, f *factory, o *torBridgeUseOptions, enable bool) error {
	verb := map[bool]string{true: "enable", false: "disable"}[enable]
	now, err := getTor(ctx, f)
	if err != nil {
		return err
	}
	if o.dryRun {
		words := map[bool]string{true: "in use", false: "not in use"}
		plan := step{Action: verb, Kind: "bridges of", Name: "tor", Change: now.Bridges != enable, Detail: "are " + words[enable]}
		if plan.Change {
			plan.Detail = words[now.Bridges] + " → " + words[enable]
		}
		return f.printPlan([]step{plan}, nil)
	}
	if !enable && now.Bridges { // otherwise nobody sees more than before
		if err := f.agree(o.consent, question{what: "reach Tor without bridges, which others can see"}); err != nil {
			return err
		}
	}
	r := &tor.BridgeUse{}
	r.Body.Enabled = enable
	s, err := call(ctx, f, tor.UseBridges, r)
	if err != nil {
		return err
	}
	last := *s
	if o.wait && last.Lane != "up" {
		if last, err = waitForTor(ctx, f); err != nil {
			return err
		}
	}
	if err := printChanged(f, view.Tor(), 1, []tor.Status{last}); err != nil {
		return err
	}
	if last.Lane != "up" {
		f.hint("%s", hintOr(last, "'vpnctl tor bootstrap' follows how far tor comes"))
	}
	return nil
}

func bridgeIDs(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, tor.ListBridges, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, b := range l.Items {
		out = append(out, describe(b.ID, b.Line))
	}
	return out
}
