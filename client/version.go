package client

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/build"
)

func newVersion(f *factory) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show which vpn this is",
		Args:  cobra.NoArgs,
		RunE: run(func(context.Context, []string) error {
			v := build.Get()
			return f.print(v, func(row func(string, string, ...any)) {
				row("vpn", "%s", v.Version)
				row("Go", "%s", v.Go)
				row("System", "%s/%s", v.OS, v.Arch)
			})
		}),
	}
}
