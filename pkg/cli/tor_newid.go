package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/view"
)

type torNewIDOptions struct {
	user, device string
	all, dryRun  bool
	consent      consent
}

func newTorNewID(f *factory) *cobra.Command {
	o := &torNewIDOptions{}
	cmd := &cobra.Command{
		Use: "newid (--user U | --device U/D | --all)", Short: "Give a device, a user or all a new identity", SuggestFor: []string{"newnym"},
		Long: `Close the circuits of one device, of a user's devices or of all, and what is
open through them. What they open next takes other circuits, and with them
other exits. Nobody else is touched.`,
		Example: `  vpnctl tor newid --device alice/laptop
  vpnctl tor newid --all -y`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTorNewID(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.user, "user", "", "all devices of this user")
	cmd.Flags().StringVar(&o.device, "device", "", "this connected device: USER/NAME, a session id, or a user who has one only")
	cmd.Flags().BoolVar(&o.all, "all", false, "every device")
	cmd.MarkFlagsOneRequired("user", "device", "all")
	cmd.MarkFlagsMutuallyExclusive("user", "device", "all")
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
	_ = cmd.RegisterFlagCompletionFunc("device", f.complete(deviceNames))
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, false)
	return cmd
}

func runTorNewID(ctx context.Context, f *factory, o *torNewIDOptions) error {
	name := o.user + o.device
	if o.all {
		name = "all"
	}
	if o.dryRun {
		return planNewID(ctx, f, o)
	}
	if o.all {
		if err := f.agree(o.consent, question{what: "give every device a new identity, and cut what they have open"}); err != nil {
			return err
		}
	}
	r := &tor.NewIDRequest{}
	r.Body.User, r.Body.Device, r.Body.All = o.user, o.device, o.all
	done, err := call(ctx, f, tor.NewID, r)
	if err != nil {
		return err
	}
	return printChanged(f, view.NewIDs(name), 1, []tor.NewIDReply{*done})
}

// planNewID counts what would be closed.
func planNewID(ctx context.Context, f *factory, o *torNewIDOptions) error {
	s := step{Action: "newid", Kind: "all", Name: "devices"}
	theirs := func(tor.Owner) bool { return true }
	switch {
	case o.user != "":
		u, err := getUser(f)(ctx, o.user)
		if err != nil {
			return err
		}
		s.Kind, s.Name, s.ID = "user", u.Username, string(u.ID)
		theirs = func(v tor.Owner) bool { return v.User == u.Username }
	case o.device != "":
		d, err := getDevice(f)(ctx, o.device)
		if err != nil {
			return err
		}
		s.Kind, s.Name, s.ID = "device", view.DeviceName(d.Username, d.Name), string(d.ID)
		theirs = func(v tor.Owner) bool { return v.User == d.Username && v.Device == d.Name }
	}
	l, err := call(ctx, f, tor.ListCircuits, nil)
	if err != nil {
		return err
	}
	circuits, streams := 0, 0
	for _, c := range l.Items {
		for _, v := range c.Devices {
			if theirs(v) {
				circuits, streams = circuits+1, streams+c.Streams
				break
			}
		}
	}
	s.Change = circuits > 0
	s.Detail = fmt.Sprintf("closes %s with %s", view.Count(circuits, "circuit", "circuits"), view.Count(streams, "stream", "streams"))
	return f.printPlan([]step{s}, nil)
}
