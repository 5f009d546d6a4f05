package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/control"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type auditListOptions struct {
	who, op string
	since   since
	limit   int
	watch   bool
}

func newAuditList(f *factory) *cobra.Command {
	o := &auditListOptions{since: since{now: f.now}}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List changes and who made them, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAuditList(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.who, "who", "", "only changes of this local account")
	cmd.Flags().StringVar(&o.op, "op", "", "only this operation or kind, such as user.suspend or user")
	cmd.Flags().Var(&o.since, "since", "only changes since then, such as 36h, 7d or 2026-01-31")
	cmd.Flags().IntVar(&o.limit, "limit", 100, "print at most so many; 0 prints all")
	watchFlag(cmd, &o.watch)
	return cmd
}

func runAuditList(ctx context.Context, f *factory, o *auditListOptions) error {
	t := view.Audit()
	return showList(ctx, f, o.watch, t, t.Name, func(ctx context.Context) (*rpc.List[control.AuditEntry], error) {
		return pages(ctx, f, control.Audit, o.limit, 10_000, &control.AuditRequest{Who: o.who, Op: o.op, Since: o.since.t},
			func(r *control.AuditRequest, limit int, after string) { r.Limit, r.After = limit, after })
	})
}
