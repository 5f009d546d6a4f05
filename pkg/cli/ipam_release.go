package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type ipamReleaseOptions struct {
	dryRun  bool
	consent consent
}

func newIPAMRelease(f *factory) *cobra.Command {
	o := &ipamReleaseOptions{}
	cmd := &cobra.Command{
		Use: "release USER/DEVICE…", Short: "Give devices' addresses back; closes their sessions",
		Long: `Give devices' addresses back. An open session of the device is closed, which is
why --accept-risk=drop-sessions is needed; the next connect gets new addresses.`,
		Args: oneOrMore("device"), ValidArgsFunction: f.complete(deviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runIPAMRelease(cmd.Context(), f, o, args) },
	}
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, true)
	return cmd
}

func runIPAMRelease(ctx context.Context, f *factory, o *ipamReleaseOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	// A lease may outlive the device that the service of devices knows: what
	// has no name is named by its id.
	plan, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
		s := step{Action: "release", Kind: "lease", Name: name, ID: name, Change: true, Detail: "closes an open session", Risks: []string{string(dropSessions)}}
		d, err := getDevice(f)(ctx, name)
		switch {
		case err == nil:
			s.Name, s.ID = view.DeviceName(d.Username, d.Name), string(d.ID)
		case !errors.Is(err, fault.NotFound):
			return step{}, err
		}
		return s, nil
	})
	if o.dryRun {
		return f.printPlan(plan, err)
	}
	if err != nil {
		return err
	}
	shown := make([]string, len(plan))
	for i, s := range plan {
		shown[i] = s.Name
	}
	q := question{what: "release the addresses of " + several("device", shown), risks: map[risk]string{dropSessions: "closes open sessions"}}
	if q.typed = "release"; len(plan) == 1 {
		q.typed = plan[0].Name
	}
	if len(plan) > 0 {
		if err := f.agree(o.consent, q); err != nil {
			return err
		}
	}
	done, err := each(ctx, plan, func(ctx context.Context, s step) (outcome, error) {
		_, err := call(ctx, f, sessions.ReleaseLease, &sessions.LeaseRef{Device: s.ID})
		return outcome{Action: "released", Kind: "lease", Name: s.Name, ID: s.ID, Change: true}, err
	})
	if perr := f.printOutcomes(len(names), done); perr != nil {
		return perr
	}
	return err
}
