package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type ipamListOptions struct {
	user  string
	limit int
	watch bool
}

func newIPAMList(f *factory) *cobra.Command {
	o := &ipamListOptions{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List leases, oldest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runIPAMList(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.user, "user", "", "only this user's")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "print at most so many; 0 prints all")
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
	watchFlag(cmd, &o.watch)
	return cmd
}

func runIPAMList(ctx context.Context, f *factory, o *ipamListOptions) error {
	t := view.Leases()
	return showList(ctx, f, o.watch, t, func(l view.Lease) string { return string(l.Device) }, func(ctx context.Context) (*rpc.List[view.Lease], error) {
		return listLeases(ctx, f, o)
	})
}

// listLeases joins leases with the names of their devices: the service that
// owns addresses knows ids only.
func listLeases(ctx context.Context, f *factory, o *ipamListOptions) (*rpc.List[view.Lease], error) {
	req := &ipam.ListRequest{}
	if o.user != "" {
		u, err := getUser(f)(ctx, o.user)
		if err != nil {
			return nil, err
		}
		req.User = string(u.ID)
	}
	l, err := pages(ctx, f, ipam.Leases, o.limit, 10_000, req, func(r *ipam.ListRequest, limit int, after string) { r.Limit, r.After = limit, after })
	if err != nil {
		return nil, err
	}
	known := map[id.Device]auth.Device{}
	if devices, err := listDevices(ctx, f, o.user, 0); err == nil { // names are a help, no must
		for _, d := range devices.Items {
			known[d.ID] = d
		}
	}
	out := &rpc.List[view.Lease]{Items: make([]view.Lease, len(l.Items)), Total: l.Total}
	for i, lease := range l.Items {
		d := known[lease.Device]
		out.Items[i] = view.Lease{Lease: lease, Username: d.Username, DeviceName: d.Name}
	}
	return out, nil
}
