package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type userSetOptions struct {
	username, email string
	deviceLimit     int
	given           func(flag string) bool
	dryRun          bool
}

func newUserSet(f *factory) *cobra.Command {
	o := &userSetOptions{}
	cmd := &cobra.Command{
		Use: "set NAME…", Short: "Change users; only what is given changes", SuggestFor: []string{"update", "edit"},
		Args: oneOrMore("user"), ValidArgsFunction: f.complete(userNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.given = cmd.Flags().Changed
			if !o.given("username") && !o.given("email") && !o.given("device-limit") {
				return usageError(cmd, "nothing to change was given")
			}
			return runUserSet(cmd.Context(), f, o, args)
		},
	}
	cmd.Flags().StringVar(&o.username, "username", "", "new name")
	cmd.Flags().StringVar(&o.email, "email", "", "e-mail address; empty removes it")
	cmd.Flags().IntVar(&o.deviceLimit, "device-limit", 0, "devices that may exist at once, 1 to 100")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runUserSet(ctx context.Context, f *factory, o *userSetOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	if len(names) > 1 && (o.given("username") || o.given("email")) {
		return fault.New(fault.Invalid, "--username and --email are for one user, not for %d", len(names))
	}
	if o.dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
			u, err := getUser(f)(ctx, name)
			changes := o.changes(u)
			return step{Action: "set", Kind: "user", Name: u.Username, ID: string(u.ID), Change: len(changes) > 0, Detail: strings.Join(changes, ", ")}, err
		})
		return f.printPlan(steps, err)
	}
	changed, err := each(ctx, names, func(ctx context.Context, name string) (users.User, error) {
		u, err := call(ctx, f, users.Set, o.request(name))
		if err != nil {
			return users.User{}, err
		}
		return *u, nil
	})
	if perr := printChanged(f, view.Users(), len(names), changed); perr != nil {
		return perr
	}
	return err
}

func (o *userSetOptions) request(name string) *users.SetRequest {
	req := &users.SetRequest{Ref: users.Ref{User: name}}
	if o.given("username") {
		req.Body.Username = &o.username
	}
	if o.given("email") {
		req.Body.Email = &o.email
	}
	if o.given("device-limit") {
		req.Body.DeviceLimit = &o.deviceLimit
	}
	return req
}

func (o *userSetOptions) changes(u users.User) []string {
	var out []string
	add := func(flag string, was, is any) {
		if o.given(flag) && was != is {
			out = append(out, fmt.Sprintf("%s: %v → %v", flag, was, is))
		}
	}
	add("username", u.Username, o.username)
	add("email", u.Email, o.email)
	add("device-limit", u.DeviceLimit, o.deviceLimit)
	return out
}
