package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
)

func newServiceStop(f *factory) *cobra.Command {
	o := &serviceActOptions{}
	cmd := &cobra.Command{
		Use: "stop NAME…", Short: "Stop services",
		Long: `Stop services until they are started again. Established tunnels carry on
without any of them. Without gateway nobody can sign in or connect, and without
control vpnctl itself has nobody to talk to: both need --accept-risk=lock-out.
Without logs no lines are taken in and 'vpnctl logs' has no answers; the lines
wait in their files, and nothing is lost if those are not rotated away.`,
		Args: oneOrMore("service"), ValidArgsFunction: f.complete(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runServiceStop(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, true)
	return cmd
}

func runServiceStop(ctx context.Context, f *factory, o *serviceActOptions, args []string) error {
	return actOnServices(ctx, f, o, args, serviceAct{
		op: supervisor.Stop, verb: "stop",
		needed: func(s supervisor.Service) bool { return s.State != "stopped" && s.State != "disabled" },
		risks: map[string]string{
			"gateway": "keeps everybody from signing in and connecting",
			"control": "leaves vpnctl nobody to talk to until vpnd is restarted",
		},
		effects: map[string]string{
			"logs": "lines wait in their files, and 'vpnctl logs' has no answers",
		},
	})
}
