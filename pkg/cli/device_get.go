package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/view"
)

type deviceGetOptions struct{ watch bool }

func newDeviceGet(f *factory) *cobra.Command {
	o := &deviceGetOptions{}
	cmd := &cobra.Command{
		Use: "get USER/NAME…", Short: "Show devices", Args: oneOrMore("device"), ValidArgsFunction: f.complete(deviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runDeviceGet(cmd.Context(), f, o, args) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runDeviceGet(ctx context.Context, f *factory, o *deviceGetOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	return showPages(ctx, f, o.watch, view.Devices(), names, getDevice(f))
}

func getDevice(f *factory) func(context.Context, string) (auth.Device, error) {
	return func(ctx context.Context, name string) (auth.Device, error) {
		d, err := call(ctx, f, auth.DeviceGet, &auth.DeviceRef{Device: name})
		if err != nil {
			return auth.Device{}, err
		}
		return *d, nil
	}
}
