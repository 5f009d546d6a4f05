package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type torExitOptions struct {
	user           string
	strict, prefer bool
	dryRun         bool
}

func newTorExit(f *factory) *cobra.Command {
	return newNoun("exit", []string{"exits"}, "Where streams leave Tor",
		newTorExitList(f), newTorExitGet(f), newTorExitSet(f), newTorExitClear(f))
}

func exitUserFlag(cmd *cobra.Command, f *factory, o *torExitOptions, usage string) {
	cmd.Flags().StringVar(&o.user, "user", "", usage)
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
}

func newTorExitList(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List exit choices, that for everybody first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := call(cmd.Context(), f, tor.ListExits, nil)
			if err != nil {
				return err
			}
			return printList(f, view.Choices(), l)
		},
	}
}

func newTorExitGet(f *factory) *cobra.Command {
	o := &torExitOptions{}
	cmd := &cobra.Command{
		Use: "get", Short: "Show the exit choice for everybody or for one user", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := getExit(cmd.Context(), f, o.user)
			if err != nil {
				return err
			}
			return printOne(f, view.Choices(), c)
		},
	}
	exitUserFlag(cmd, f, o, "of this user; without it, of everybody who has none")
	return cmd
}

func newTorExitSet(f *factory) *cobra.Command {
	o := &torExitOptions{}
	cmd := &cobra.Command{
		Use: "set COUNTRY|FINGERPRINT…", Short: "Choose where streams leave Tor, for everybody or one user",
		Long: `Choose where streams leave Tor: countries as two letters, relays by their
fingerprint. With --strict nothing is connected when no such exit works; with
--prefer, the default, tor chooses another one then. Few exits make users
easier to recognise, which a warning says.`,
		Example: `  vpnctl tor exit set de nl
  vpnctl tor exit set us --user alice --strict`,
		Args: oneOrMore("exit"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runTorExitSet(cmd.Context(), f, o, args) },
	}
	exitUserFlag(cmd, f, o, "for this user only")
	cmd.Flags().BoolVar(&o.strict, "strict", false, "connect nothing when no such exit works")
	cmd.Flags().BoolVar(&o.prefer, "prefer", false, "let tor choose when no such exit works (default)")
	cmd.MarkFlagsMutuallyExclusive("strict", "prefer")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runTorExitSet(ctx context.Context, f *factory, o *torExitOptions, args []string) error {
	words, err := f.names(args)
	if err != nil {
		return err
	}
	var exits []string
	for _, w := range words {
		for e := range strings.SplitSeq(w, ",") {
			if e = strings.TrimSpace(e); e != "" {
				exits = append(exits, e)
			}
		}
	}
	if len(exits) == 0 {
		return fault.New(fault.Invalid, "which exit? none was named").WithHint("write a country such as de, or a fingerprint; 'vpnctl tor exit clear' lets tor choose")
	}
	if o.dryRun {
		c, err := getExit(ctx, f, o.user)
		if err != nil {
			return err
		}
		same := c.Strict == o.strict && slices.EqualFunc(c.Exits, exits, strings.EqualFold)
		return f.printPlan([]step{exitStep("set", c, tor.Choice{Exits: exits, Strict: o.strict}, !same)}, nil)
	}
	r := &tor.ExitRequest{User: cmp.Or(o.user, "-")}
	r.Body.Exits, r.Body.Strict = exits, o.strict
	done, err := call(ctx, f, tor.SetExit, r)
	if err != nil {
		return err
	}
	if done.Warning != "" {
		f.note("warning: %s", done.Warning)
	}
	switch f.output { // programs read the warning where they read the rest
	case "json", "yaml":
		return f.printObject(done)
	case "jsonl":
		return f.printLine(done)
	}
	return printChanged(f, view.Choices(), 1, []tor.Choice{done.Choice})
}

func newTorExitClear(f *factory) *cobra.Command {
	o := &torExitOptions{}
	cmd := &cobra.Command{
		Use: "clear", Short: "Drop the exit choice for everybody or of one user", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorExitClear(cmd.Context(), f, o) },
	}
	exitUserFlag(cmd, f, o, "of this user; what holds for everybody holds for them then")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runTorExitClear(ctx context.Context, f *factory, o *torExitOptions) error {
	c, err := getExit(ctx, f, o.user)
	if err != nil {
		return err
	}
	there := len(c.Exits) > 0
	if o.dryRun {
		return f.printPlan([]step{exitStep("clear", c, tor.Choice{}, there)}, nil)
	}
	if there {
		if _, err := call(ctx, f, tor.ClearExit, &tor.UserRef{User: cmp.Or(c.User, "-")}); err != nil {
			return err
		}
	}
	return f.printOutcomes(1, []outcome{{Action: "cleared", Kind: "exit choice of", Name: cmp.Or(c.User, "everybody"), Change: there}})
}

func exitStep(action string, now, then tor.Choice, change bool) step {
	detail := "is " + choiceWords(now)
	if change {
		detail = choiceWords(then) + " (now: " + choiceWords(now) + ")"
	}
	return step{Action: action, Kind: "exit choice of", Name: cmp.Or(now.User, "everybody"), Change: change, Detail: detail}
}

func choiceWords(c tor.Choice) string {
	if len(c.Exits) == 0 {
		return "left to tor"
	}
	return fmt.Sprintf("%s, %s", strings.Join(c.Exits, ", "), map[bool]string{true: "strict", false: "prefer"}[c.Strict])
}

// getExit gives the choice of a user, or the global one; without exits where
// there is none.
func getExit(ctx context.Context, f *factory, user string) (tor.Choice, error) {
	if user != "" {
		u, err := getUser(f)(ctx, user)
		if err != nil {
			return tor.Choice{}, err
		}
		user = u.Username
	}
	l, err := call(ctx, f, tor.ListExits, nil)
	if err != nil {
		return tor.Choice{}, err
	}
	for _, c := range l.Items {
		if c.User == user {
			return c, nil
		}
	}
	return tor.Choice{User: user, Exits: []string{}}, nil
}
