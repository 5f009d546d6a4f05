package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/view"
)

type serviceReloadOptions struct {
	dryRun  bool
	wait    bool
	consent consent
}

func newServiceReload(f *factory) *cobra.Command {
	o := &serviceReloadOptions{}
	cmd := &cobra.Command{
		Use: "reload", Short: "Read the configuration and services.json again and apply what changed", Args: noArgs,
		Long: `Read the configuration and services.json again and apply what changed: services
whose settings are the same are left alone. A file with mistakes changes
nothing; 'vpnd config check' finds them beforehand.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServiceReload(cmd.Context(), f, o) },
	}
	dryRunFlag(cmd, &o.dryRun)
	waitFlag(cmd, &o.wait)
	o.consent.flags(cmd, true)
	return cmd
}

func runServiceReload(ctx context.Context, f *factory, o *serviceReloadOptions) error {
	if o.dryRun {
		l, err := call(ctx, f, supervisor.List, nil)
		if err != nil {
			return err
		}
		return f.printPlan([]step{{
			Action: "reload", Kind: "vpnd", Name: "services.json", Change: true,
			Detail: "restarts those of " + view.Count(len(l.Items), "service", "services") + " whose settings changed",
		}}, nil)
	}
	if err := f.agree(consent{yes: true, accept: o.consent.accept}, question{}); err != nil {
		return err
	}
	c, err := call(ctx, f, supervisor.Reload, nil)
	if err != nil {
		return err
	}
	for _, list := range []*[]string{&c.Started, &c.Stopped, &c.Restarted, &c.Unchanged} {
		if *list == nil {
			*list = []string{}
		}
	}
	if o.wait {
		for _, name := range append(append([]string(nil), c.Started...), c.Restarted...) {
			if _, err := waitForService(ctx, f, name); err != nil {
				return err
			}
		}
	}
	if f.output == "name" && len(c.Started)+len(c.Restarted)+len(c.Stopped) == 0 {
		return nil
	}
	return printOne(f, view.Reload(), *c)
}
