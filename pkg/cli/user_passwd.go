package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type userPasswdOptions struct {
	password passwordFlags
	dryRun   bool
}

// newPassword is a password that was made here.
type newPassword struct {
	Username string `json:"username"`
	ID       string `json:"id"`
	Password string `json:"password"`
}

func newUserPasswd(f *factory) *cobra.Command {
	o := &userPasswdOptions{}
	cmd := &cobra.Command{
		Use: "passwd NAME…", Short: "Set a user's password; running sessions go on", SuggestFor: []string{"password"},
		Long: `Set a user's password. Refresh tokens stop working, so each device has to sign in
again once its access token has run out; running sessions go on until then.`,
		Args: oneOrMore("user"), ValidArgsFunction: f.complete(userNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runUserPasswd(cmd.Context(), f, o, args) },
	}
	o.password.flags(cmd)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runUserPasswd(ctx context.Context, f *factory, o *userPasswdOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	switch {
	case len(names) > 1 && !o.password.generate && !o.dryRun:
		return fault.New(fault.Invalid, "several users cannot share a password").WithHint("add --generate-password")
	case o.password.generate && f.output == "name":
		return fault.New(fault.Invalid, "-o name would not show the generated password").WithHint("use another -o")
	}
	if o.dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
			u, err := getUser(f)(ctx, name)
			return step{Action: "set password", Kind: "user", Name: u.Username, ID: string(u.ID), Change: true, Detail: "devices have to sign in again"}, err
		})
		return f.printPlan(steps, err)
	}
	set, err := each(ctx, names, func(ctx context.Context, name string) (newPassword, error) {
		u, err := getUser(f)(ctx, name)
		if err != nil {
			return newPassword{}, err
		}
		pw, err := f.password(o.password, u.Username)
		if err != nil {
			return newPassword{}, err
		}
		req := &users.PasswordRequest{Ref: users.Ref{User: string(u.ID)}}
		req.Body.Password = pw.Reveal()
		_, err = call(ctx, f, users.SetPassword, req)
		return newPassword{u.Username, string(u.ID), pw.Reveal()}, err
	})
	if perr := f.printPasswords(o, len(names), set); perr != nil {
		return perr
	}
	return err
}

func (f *factory) printPasswords(o *userPasswdOptions, asked int, set []newPassword) error {
	if len(set) == 0 {
		return nil
	}
	if !o.password.generate {
		done := make([]outcome, len(set))
		for i, p := range set {
			done[i] = outcome{Action: "has a new password", Kind: "user", Name: p.Username, ID: p.ID, Change: true}
		}
		return f.printOutcomes(asked, done)
	}
	t := view.Table[newPassword]{Noun: "password", Name: func(p newPassword) string { return p.Username }, Columns: []view.Column[newPassword]{
		{Title: "USER", Cell: func(p newPassword, _ time.Time) view.Cell { return view.Text(p.Username) }},
		{Title: "PASSWORD", Cell: func(p newPassword, _ time.Time) view.Cell { return view.Text(p.Password) }},
	}}
	if asked == 1 && (f.output == "json" || f.output == "yaml") {
		return f.printObject(set[0])
	}
	return printList(f, t, &rpc.List[newPassword]{Items: set, Total: len(set)})
}
