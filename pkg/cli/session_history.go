package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/view"
)

type sessionHistoryOptions struct {
	user, device string
	since        since
	limit        int
}

func newSessionHistory(f *factory) *cobra.Command {
	o := &sessionHistoryOptions{since: since{now: f.now}}
	cmd := &cobra.Command{
		Use: "history", Short: "List closed sessions, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSessionHistory(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.user, "user", "", "only this user's")
	cmd.Flags().StringVar(&o.device, "device", "", "only this device's, by name or id")
	cmd.Flags().Var(&o.since, "since", "only those closed since then, such as 36h, 7d or 2026-01-31")
	cmd.Flags().IntVar(&o.limit, "limit", 100, "print at most so many; 0 prints all")
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
	return cmd
}

func runSessionHistory(ctx context.Context, f *factory, o *sessionHistoryOptions) error {
	l, err := pages(ctx, f, sessions.History, o.limit, 10_000, &sessions.HistoryRequest{User: o.user, Device: o.device, Since: o.since.t},
		func(r *sessions.HistoryRequest, limit int, after string) { r.Limit, r.After = limit, after })
	if err != nil {
		return err
	}
	return printList(f, view.History(), l)
}
