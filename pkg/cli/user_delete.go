package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type userDeleteOptions struct {
	ifExists bool
	dryRun   bool
	consent  consent
}

func newUserDelete(f *factory) *cobra.Command {
	o := &userDeleteOptions{}
	cmd := &cobra.Command{
		Use: "delete NAME…", Short: "Delete users with their devices and addresses; returns after their peers are gone",
		SuggestFor: []string{"remove", "rm"}, Args: oneOrMore("user"), ValidArgsFunction: f.complete(userNames),
		RunE: func(cmd *cobra.Command, args []string) error { return runUserDelete(cmd.Context(), f, o, args) },
	}
	cmd.Flags().BoolVar(&o.ifExists, "if-exists", false, "a user that does not exist is fine")
	dryRunFlag(cmd, &o.dryRun)
	o.consent.flags(cmd, true)
	return cmd
}

// doomedUser is a user that is to be deleted and what goes with it.
type doomedUser struct {
	name  string // as it was given, where there is no such user
	user  *users.User
	open  int
	risks map[risk]string
}

func runUserDelete(ctx context.Context, f *factory, o *userDeleteOptions, args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	doomed, err := each(ctx, names, func(ctx context.Context, name string) (doomedUser, error) { return findDoomed(ctx, f, o, name) })
	if o.dryRun {
		return f.printPlan(deletePlan(doomed), err)
	}
	if err != nil {
		return err
	}
	q := question{risks: map[risk]string{}}
	var there []string
	for _, d := range doomed {
		if d.user != nil {
			there = append(there, d.user.Username)
		}
		for r, why := range d.risks {
			q.risks[r] = why
		}
	}
	if len(there) > 0 {
		q.what, q.typed = "delete "+several("user", there), there[0]
		if len(there) > 1 {
			q.typed = "delete"
		}
		if err := f.agree(o.consent, q); err != nil {
			return err
		}
	}
	gone, err := each(ctx, doomed, func(ctx context.Context, d doomedUser) (outcome, error) {
		if d.user == nil {
			return outcome{Action: "deleted", Kind: "user", Name: d.name}, nil
		}
		_, err := call(ctx, f, users.Delete, &users.Ref{User: string(d.user.ID)})
		if errors.Is(err, fault.NotFound) && o.ifExists {
			err = nil
		}
		return outcome{Action: "deleted", Kind: "user", Name: d.user.Username, ID: string(d.user.ID), Change: true}, err
	})
	if perr := f.printOutcomes(len(names), gone); perr != nil {
		return perr
	}
	return err
}

func findDoomed(ctx context.Context, f *factory, o *userDeleteOptions, name string) (doomedUser, error) {
	u, err := getUser(f)(ctx, name)
	if errors.Is(err, fault.NotFound) && o.ifExists {
		return doomedUser{name: name}, nil
	}
	if err != nil {
		return doomedUser{}, err
	}
	d := doomedUser{name: name, user: &u, risks: map[risk]string{destroyData: "removes the account with its devices and addresses for good"}}
	if d.open, err = openSessions(ctx, f, string(u.ID)); err != nil {
		return doomedUser{}, err
	}
	if d.open > 0 {
		d.risks[dropSessions] = "closes " + view.Count(d.open, "open session", "open sessions")
	}
	return d, nil
}

func deletePlan(doomed []doomedUser) []step {
	steps := make([]step, len(doomed))
	for i, d := range doomed {
		if d.user == nil {
			steps[i] = step{Action: "delete", Kind: "user", Name: d.name, Detail: "does not exist"}
			continue
		}
		steps[i] = step{
			Action: "delete", Kind: "user", Name: d.user.Username, ID: string(d.user.ID), Change: true,
			Detail: "closes " + view.Count(d.open, "open session", "open sessions"), Risks: []string{string(destroyData)},
		}
		if d.open > 0 {
			steps[i].Risks = []string{string(dropSessions), string(destroyData)}
		}
	}
	return steps
}

// openSessions counts a user's open sessions.
func openSessions(ctx context.Context, f *factory, user string) (int, error) {
	l, err := call(ctx, f, sessions.List, &sessions.ListRequest{User: user, Limit: 1})
	if err != nil {
		return 0, err
	}
	return l.Total, nil
}
