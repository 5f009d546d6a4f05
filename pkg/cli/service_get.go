package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/view"
)

type serviceGetOptions struct{ watch bool }

func newServiceGet(f *factory) *cobra.Command {
	o := &serviceGetOptions{}
	cmd := &cobra.Command{
		Use: "get NAME…", Short: "Show services", Args: oneOrMore("service"), ValidArgsFunction: f.complete(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runServiceGet(cmd.Context(), f, o, args) },
	}
	watchFlag(cmd, &o.watch)
	return cmd
}

func runServiceGet(ctx context.Context, f *factory, o *serviceGetOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	return showPages(ctx, f, o.watch, view.Services(), names, getService(f))
}

func getService(f *factory) func(context.Context, string) (supervisor.Service, error) {
	return func(ctx context.Context, name string) (supervisor.Service, error) {
		s, err := call(ctx, f, supervisor.Get, &supervisor.Ref{Service: name})
		if err != nil {
			return supervisor.Service{}, err
		}
		return *s, nil
	}
}
