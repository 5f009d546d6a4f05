package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/view"
)

// allRelays is more than the consensus has.
const allRelays = 20_000

type torRelayListOptions struct {
	exit    bool
	country string
	limit   int
}

func newTorRelay(f *factory) *cobra.Command {
	return newNoun("relay", []string{"relays"}, "The relays of the Tor network", newTorRelayList(f))
}

func newTorRelayList(f *factory) *cobra.Command {
	o := &torRelayListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List relays, the fastest first", Args: noArgs,
		Example: `  vpnctl tor relay list --exit --country de --limit 20
  vpnctl tor relay list --exit --country de -o name   fingerprints for 'tor exit set'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorRelayList(cmd.Context(), f, o) },
	}
	cmd.Flags().BoolVar(&o.exit, "exit", false, "only those that can be an exit")
	cmd.Flags().StringVar(&o.country, "country", "", "only those in this country, such as de")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "print at most so many; 0 prints all")
	_ = cmd.RegisterFlagCompletionFunc("country", cobra.NoFileCompletions)
	return cmd
}

func runTorRelayList(ctx context.Context, f *factory, o *torRelayListOptions) error {
	r := &tor.RelayRequest{Exit: o.exit, Country: strings.ToLower(o.country), Limit: o.limit}
	if o.limit <= 0 {
		r.Limit = allRelays
	}
	l, err := call(ctx, f, tor.ListRelays, r)
	if err != nil {
		return err
	}
	return printList(f, view.Relays(), l)
}
