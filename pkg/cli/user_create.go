package cli

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type userCreateOptions struct {
	email       string
	deviceLimit int
	password    passwordFlags
	ifNotExists bool
	dryRun      bool
}

// createdUser is a new user, with the password where it was made here.
type createdUser struct {
	users.User
	Password string `json:"password,omitempty"`
}

func newUserCreate(f *factory) *cobra.Command {
	o := &userCreateOptions{}
	cmd := &cobra.Command{
		Use: "create NAME…", Short: "Create users", SuggestFor: []string{"add", "new"},
		Long: `Create users. The password comes from a prompt, --password-stdin or
--password-file, or is made and printed with --generate-password; with several
names only the last works, and each gets one of its own.`,
		Args: oneOrMore("user"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runUserCreate(cmd.Context(), f, o, args) },
	}
	cmd.Flags().StringVar(&o.email, "email", "", "e-mail address, a second name to sign in with")
	cmd.Flags().IntVar(&o.deviceLimit, "device-limit", 0, "devices that may exist at once, 1 to 100 (default 5)")
	cmd.Flags().BoolVar(&o.ifNotExists, "if-not-exists", false, "leave a user that exists as it is")
	o.password.flags(cmd)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func runUserCreate(ctx context.Context, f *factory, o *userCreateOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	switch {
	case len(names) > 1 && o.email != "":
		return fault.New(fault.Invalid, "--email is for one user, not for %d", len(names))
	case len(names) > 1 && !o.password.generate && !o.dryRun:
		return fault.New(fault.Invalid, "several users cannot share a password").WithHint("add --generate-password")
	case o.password.generate && f.output == "name":
		return fault.New(fault.Invalid, "-o name would not show the generated password").WithHint("use another -o")
	}
	if o.dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) { return planCreate(ctx, f, o, name) })
		return f.printPlan(steps, err)
	}
	created, err := each(ctx, names, func(ctx context.Context, name string) (createdUser, error) { return createUser(ctx, f, o, name) })
	if perr := printChanged(f, createdUsers(o), len(names), created); perr != nil {
		return perr
	}
	if err == nil && len(created) == 1 {
		hintLogin(ctx, f, created[0].Username)
	}
	return err
}

func createUser(ctx context.Context, f *factory, o *userCreateOptions, name string) (createdUser, error) {
	if o.ifNotExists { // before asking for a password that nobody needs
		if u, err := getUser(f)(ctx, name); err == nil && u.Username == name {
			return createdUser{User: u}, nil
		}
	}
	pw, err := f.password(o.password, name)
	if err != nil {
		return createdUser{}, err
	}
	req := &users.CreateRequest{}
	req.Body.Username, req.Body.Email, req.Body.Password, req.Body.DeviceLimit = name, o.email, pw.Reveal(), o.deviceLimit
	u, err := call(ctx, f, users.Create, req)
	if errors.Is(err, fault.Exists) && o.ifNotExists { // somebody was quicker
		if u, gerr := getUser(f)(ctx, name); gerr == nil && u.Username == name {
			return createdUser{User: u}, nil
		}
	}
	if err != nil {
		return createdUser{}, err
	}
	c := createdUser{User: *u}
	if o.password.generate {
		c.Password = pw.Reveal()
	}
	return c, nil
}

func planCreate(ctx context.Context, f *factory, o *userCreateOptions, name string) (step, error) {
	u, err := getUser(f)(ctx, name)
	switch {
	case err == nil && u.Username == name && !o.ifNotExists:
		return step{}, fault.New(fault.Exists, "user %q exists", name).WithHint("--if-not-exists leaves it as it is")
	case err == nil && u.Username == name:
		return step{Action: "create", Kind: "user", Name: name, ID: string(u.ID), Detail: "exists"}, nil
	case err == nil, errors.Is(err, fault.NotFound):
		return step{Action: "create", Kind: "user", Name: name, Change: true}, nil
	}
	return step{}, err
}

// createdUsers is the table of users, with the passwords where some were made.
func createdUsers(o *userCreateOptions) view.Table[createdUser] {
	t := view.Users()
	out := view.Table[createdUser]{Noun: t.Noun, Name: func(c createdUser) string { return c.Username }}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, view.Column[createdUser]{
			Title: c.Title, Detail: c.Detail, Right: c.Right, Shrink: c.Shrink,
			Cell: func(v createdUser, now time.Time) view.Cell { return c.Cell(v.User, now) },
		})
	}
	if o.password.generate {
		out = out.With(view.Column[createdUser]{Title: "PASSWORD", Cell: func(v createdUser, _ time.Time) view.Cell { return view.Or(v.Password) }})
	}
	return out
}

// hintLogin says what to type on the user's machine.
func hintLogin(ctx context.Context, f *factory, name string) {
	if !f.errTTY || f.quiet {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	s, err := call(ctx, f, control.GetStatus, nil)
	if err != nil || s.Endpoint == "" || s.Pin == "" {
		return
	}
	f.hint("on %s's machine: vpn login https://%s --user %s --pin %s", name, clientAddress(s.Endpoint), name, s.Pin)
}

// clientAddress is a host the way URLs want it.
func clientAddress(host string) string {
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + host + "]"
	}
	return host
}
