package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/view"
)

func newTorBootstrap(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "bootstrap", Short: "Follow tor until it is bootstrapped", Args: noArgs,
		Long: `Follow how far tor has come until it is at 100 %, as long as --timeout says
(default 60s), and exit 8 when it does not get there. A tor that was stopped is
not waited for: exit 5. Off a terminal every change is a line.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorBootstrap(cmd.Context(), f) },
	}
}

func runTorBootstrap(ctx context.Context, f *factory) error {
	var last *tor.Bootstrap
	err := f.until(ctx, "tor is not bootstrapped", "vpnctl tor status", func(ctx context.Context) (bool, string, error) {
		s, err := getTor(ctx, f)
		if err != nil {
			return false, "", err
		}
		b := s.Bootstrap
		if last == nil || *last != b {
			if err := printBootstrap(f, b, last == nil); err != nil {
				return false, "", err
			}
			last = &b
		}
		if s.WishProcess == "stop" {
			return false, "", torIsStopped()
		}
		why := fmt.Sprintf("at %d %%, and the process is %s", b.Percent, s.Process)
		if b.Warning != "" {
			why += ": " + b.Warning
		}
		return b.Percent >= 100, why, nil
	})
	if f.redraws() && last != nil {
		fmt.Fprintln(f.out)
	}
	return err
}

// printBootstrap adds a line, or writes over the last one on a terminal.
func printBootstrap(f *factory, b tor.Bootstrap, first bool) error {
	if !f.redraws() {
		return printItems(f, view.Bootstraps(), []tor.Bootstrap{b})
	}
	c := view.Bootstrap(b)
	c.Text += "  " + view.BootstrapPhase(b)
	if b.Warning != "" {
		c.Text += " (" + b.Warning + ")"
	}
	width, _ := f.size()
	c.Text = view.Fit(view.Clean(c.Text), width-1)
	over := "\r\x1b[2K"
	if first {
		over = ""
	}
	_, err := fmt.Fprint(f.out, over+f.theme().Show(c))
	return err
}
