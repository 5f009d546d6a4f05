package cli

import (
	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/view"
)

func newLogsServices(f *factory) *cobra.Command {
	w := &logsWindow{}
	cmd := &cobra.Command{
		Use: "services [QUERY…]", Aliases: []string{"service"}, Short: "List who writes log lines, and how many", Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeQuery,
		Example: `  vpnctl logs services since=1d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogsList(cmd.Context(), f, w, args, logs.Services, view.LogServices())
		},
	}
	w.flags(cmd, f)
	return cmd
}
