package client

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/client/agentapi"
)

func newDown(f *factory) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the tunnel down and restore the machine",
		Long: `Take the tunnel down and restore routes, rules and name servers as they were. It
is no error when there is no tunnel. After a crash of the agent it needs root.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error { return runDown(ctx, f) }),
	}
}

func runDown(ctx context.Context, f *factory) error {
	if err := takeDown(ctx); err != nil {
		return err
	}
	st := agentapi.Status{State: agentapi.Down}
	return f.print(struct {
		Tunnel agentapi.Status `json:"tunnel"`
	}{st}, func(row func(string, string, ...any)) {
		row("Tunnel", "down")
	})
}

// takeDown ends the agent, and clears up after one that died.
func takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	conn, err := findAgent(ctx)
	if err != nil {
		return err
	}
	if conn != nil {
		if err := stopAgent(ctx, conn); err != nil {
			return err
		}
	}
	return clearUp(ctx)
}
