package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type deviceDeleteOptions struct {
	ifExists bool
	dryRun   bool
	consent  consent
}

func newDeviceDelete(f *factory) *cobra.Command {
	o := &deviceDeleteOptions{}
	cmd := &cobra.Command{
		Use: "delete USER/NAME…", Short: "Delete devices: session closed, addresses released, tokens void",
		SuggestFor: []string{"remove", "rm"}, Args: oneOrMore("device"), ValidArgsFunction: f.complete(deviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runDeviceDelete(cmd.Context(), f, o, args) },
	}
	cmd.Flags().BoolVar(&o.ifExists, "if-exists", false, "a device that does not exist is fine")
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, false)
	return cmd
}

func runDeviceDelete(ctx context.Context, f *factory, o *deviceDeleteOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	type found struct {
		name   string
		device *auth.Device
	}
	devices, err := each(ctx, names, func(ctx context.Context, name string) (found, error) {
		d, err := getDevice(f)(ctx, name)
		if errors.Is(err, fault.NotFound) && o.ifExists {
			return found{name: name}, nil
		}
		return found{name, &d}, err
	})
	var steps []step
	var there []string
	for _, d := range devices {
		if d.device == nil {
			steps = append(steps, step{Action: "delete", Kind: "device", Name: d.name, Detail: "does not exist"})
			continue
		}
		name := view.DeviceName(d.device.Username, d.device.Name)
		there = append(there, name)
		steps = append(steps, step{Action: "delete", Kind: "device", Name: name, ID: string(d.device.ID), Change: true, Detail: "has to sign in anew"})
	}
	if o.dryRun {
		return f.printPlan(steps, err)
	}
	if err != nil {
		return err
	}
	if len(there) > 0 {
		if err := f.agree(o.consent, question{what: "delete " + several("device", there)}); err != nil {
			return err
		}
	}
	gone, err := each(ctx, devices, func(ctx context.Context, d found) (outcome, error) {
		if d.device == nil {
			return outcome{Action: "deleted", Kind: "device", Name: d.name}, nil
		}
		_, err := call(ctx, f, auth.DeviceDelete, &auth.DeviceRef{Device: string(d.device.ID)})
		if errors.Is(err, fault.NotFound) && o.ifExists {
			err = nil
		}
		return outcome{Action: "deleted", Kind: "device", Name: view.DeviceName(d.device.Username, d.device.Name), ID: string(d.device.ID), Change: true}, err
	})
	if perr := f.printOutcomes(len(names), gone); perr != nil {
		return perr
	}
	return err
}
