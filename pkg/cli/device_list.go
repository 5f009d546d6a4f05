package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type deviceListOptions struct {
	user  string
	limit int
	watch bool
}

func newDeviceList(f *factory) *cobra.Command {
	o := &deviceListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List devices", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDeviceList(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.user, "user", "", "only this user's")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "print at most so many; 0 prints all")
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
	watchFlag(cmd, &o.watch)
	return cmd
}

func runDeviceList(ctx context.Context, f *factory, o *deviceListOptions) error {
	t := view.Devices()
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[auth.Device], error) {
		return listDevices(ctx, f, o.user, o.limit)
	})
}

func listDevices(ctx context.Context, f *factory, user string, limit int) (*rpc.List[auth.Device], error) {
	return pages(ctx, f, auth.DeviceList, limit, 1000, &auth.DeviceListRequest{User: user},
		func(r *auth.DeviceListRequest, limit int, after string) { r.Limit, r.After = limit, after })
}
