package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/view"
)

// recentLogs keeps completions from reading everything that was ever said.
const recentLogs = "since=1d"

// completeQuery offers terms: fields with an operator, and values where there
// are few.
func (f *factory) completeQuery(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	out, directive := f.complete(func(ctx context.Context, f *factory) []cobra.Completion { return queryTerms(ctx, f, prefix) })(cmd, args, prefix)
	if slices.ContainsFunc(out, func(c string) bool { name, _, _ := strings.Cut(c, "\t"); return strings.HasSuffix(name, "=") }) {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return out, directive
}

// firstThenQuery offers names for the first word and terms after it.
func (f *factory) firstThenQuery(names candidates) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return f.complete(names)(cmd, args, prefix)
		}
		return f.completeQuery(cmd, args, prefix)
	}
}

func queryTerms(ctx context.Context, f *factory, prefix string) []cobra.Completion {
	var out []cobra.Completion
	switch field, _, hasValue := strings.Cut(prefix, "="); {
	case hasValue && field == "service":
		for _, c := range logServices(ctx, f) {
			name, what, _ := strings.Cut(c, "\t")
			out = append(out, describe("service="+logsValue(name), what))
		}
	case hasValue && (field == "level" || field == "level>"):
		for _, level := range []string{"trace", "debug", "info", "warn", "error", "fatal"} {
			out = append(out, field+"="+level)
		}
	case !hasValue:
		for _, c := range logFields(ctx, f) {
			name, what, _ := strings.Cut(c, "\t")
			if bareValue.MatchString(name) {
				out = append(out, describe(name+"=", what))
			}
		}
	}
	return out
}

func logFields(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, logs.Fields, &logs.Ask{Query: recentLogs})
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, v := range l.Items {
		out = append(out, describe(v.Name, view.Count(int(v.Count), "line", "lines")))
	}
	return out
}

func logServices(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, logs.Services, &logs.Ask{Query: recentLogs})
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, v := range l.Items {
		if v.Name != "" {
			out = append(out, describe(v.Name, view.Count(int(v.Count), "line", "lines")))
		}
	}
	return out
}

func savedNames(ctx context.Context, f *factory) []cobra.Completion {
	l, err := call(ctx, f, logs.ListSaved, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, v := range l.Items {
		out = append(out, describe(v.Name, v.Query))
	}
	return out
}
