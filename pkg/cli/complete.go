package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/view"
)

// completionTime is what a person at a prompt does not notice.
const completionTime = 300 * time.Millisecond

// candidates asks vpnd for names: each with what it is, or none.
type candidates func(ctx context.Context, f *factory) []cobra.Completion

// complete offers names that are not on the line yet. It never says anything
// but names: a prompt is no place for errors.
func (f *factory) complete(ask candidates) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if f.settle(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		f.patience = -1
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var out []cobra.Completion
		for _, c := range ask(ctx, f) {
			name, _, _ := strings.Cut(c, "\t")
			if strings.HasPrefix(name, prefix) && !contains(args, name) {
				out = append(out, c)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func contains(args []string, name string) bool {
	for _, a := range args {
		if a == name {
			return true
		}
	}
	return false
}

func describe(name, what string) cobra.Completion {
	return cobra.CompletionWithDesc(view.Clean(name), view.Clean(what))
}

func userNames(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, users.ListUsers, &users.ListRequest{Limit: 1000})
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, u := range l.Items {
		out = append(out, describe(u.Username, string(u.Status)))
	}
	return out
}

func deviceNames(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, auth.DeviceList, &auth.DeviceListRequest{Limit: 1000})
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, d := range l.Items {
		out = append(out, describe(view.DeviceName(d.Username, d.Name), d.OS))
	}
	return out
}

func sessionNames(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, sessions.List, &sessions.ListRequest{Limit: 1000})
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, s := range l.Items {
		out = append(out, describe(view.DeviceName(s.Username, s.DeviceName), string(s.State)))
	}
	return out
}

func laneNames(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, lanes.List, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, v := range l.Items {
		out = append(out, describe(string(v.Name), v.State))
	}
	return out
}

func serviceNames(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, supervisor.List, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, s := range l.Items {
		out = append(out, describe(s.Name, s.State))
	}
	return out
}
