package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

func newTorCheck(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Fetch a page through Tor and show what it saw", Args: noArgs,
		Long: `Fetch the page that tor.check_url of the configuration names, through Tor, and
show which address it saw. Exit 9 when it did not answer, or saw an address of
this host.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorCheck(cmd.Context(), f) },
	}
}

func runTorCheck(ctx context.Context, f *factory) error {
	c, err := call(ctx, f, tor.RunCheck, nil)
	if err != nil {
		return err
	}
	if err := printOne(f, view.TorCheck(), *c); err != nil {
		return err
	}
	if c.OK {
		return nil
	}
	f.hint("vpnctl tor status")
	return quietExit{fault.Unhealthy}
}
