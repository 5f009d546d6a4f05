package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type leakTestOptions struct{ lane string }

func newLeakTest(f *factory) *cobra.Command {
	o := &leakTestOptions{}
	cmd := &cobra.Command{
		Use: "leaktest", Short: "Try to leak from a lane, and say whether it worked",
		Long: `Send, as a device of the lane, packets of every kind that must not get out or
reach services of the server, and ask the kernel what it let through. Exit 9
when something leaked, or when somebody had changed the rules since the last
test. No verdict is given when the packets cannot be shown to have arrived.
Packets that leaked are shown; -o wide shows them all.`,
		Example: `  vpnctl leaktest               lane tor
  vpnctl leaktest --lane vpn
  vpnctl leaktest list          the last results`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return runLeakTest(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.lane, "lane", string(lanes.Tor), "which lane: tor or vpn")
	_ = cmd.RegisterFlagCompletionFunc("lane", cobra.FixedCompletions([]string{string(lanes.Tor), string(lanes.VPN)}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(newLeakTestList(f))
	return cmd
}

func runLeakTest(ctx context.Context, f *factory, o *leakTestOptions) error {
	r := &canary.RunRequest{}
	r.Body.Lane = lanes.Name(o.lane)
	if r.Body.Lane != lanes.Tor && r.Body.Lane != lanes.VPN {
		return noLane(o.lane)
	}
	res, err := call(ctx, f, canary.Run, r)
	if err != nil {
		return err
	}
	if err := printLeakTest(f, *res); err != nil || res.OK {
		return err
	}
	f.hint("'vpnctl lane down %s' blocks the lane until it is known why", res.Lane)
	return quietExit{fault.Unhealthy}
}

// printLeakTest prints the verdict, and for people before it what leaked;
// -o wide shows every attempt.
func printLeakTest(f *factory, r canary.Result) error {
	if f.output != "table" && f.output != "wide" {
		return printOne(f, view.LeakTests(), r)
	}
	shown := r.Attempts
	if f.output == "table" {
		shown = nil
		for _, a := range r.Attempts {
			if a.Leaked {
				shown = append(shown, a)
			}
		}
	}
	if len(shown) > 0 {
		lines := rows(f, view.LeakAttempts(r.Lane), shown)
		if f.outTTY {
			lines = append(lines, "")
		} else {
			for i := range lines {
				lines[i] = "attempt\t" + lines[i]
			}
		}
		if err := f.printLines(lines); err != nil {
			return err
		}
	}
	return printOne(f, view.LeakTests(), r)
}
