package cli

import (
	"github.com/spf13/cobra"
)

func newTorEvents(f *factory) *cobra.Command {
	o := &eventsOptions{kinds: []string{"tor", "lane", "leak"}, since: since{now: f.now}}
	cmd := &cobra.Command{
		Use: "events", Aliases: []string{"event"}, Short: "Show what happened to tor and the lanes, or with -f what happens",
		Long: `Show what 'vpnctl events' shows of tor, the lanes and leak tests. With -f stay
and show what happens.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runEvents(cmd.Context(), f, o) },
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "stay and show new events")
	cmd.Flags().Var(&o.since, "since", "begin then, such as 5m, 36h or 2026-01-31")
	return cmd
}
