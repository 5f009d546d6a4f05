package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
)

// oneOrMore is the argument rule of commands that take names.
func oneOrMore(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError(cmd, "which %s? none was named", what)
		}
		return nil
	}
}

// noArgs is the argument rule of commands without names.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, "%q is one word too many", args[0])
	}
	return nil
}

// names gives what was named; "-" stands for the lines of standard input.
func (f *factory) names(args []string) ([]string, error) {
	if !slices.Contains(args, "-") {
		return args, nil
	}
	var out []string
	read := false
	for _, a := range args {
		if a != "-" {
			out = append(out, a)
			continue
		}
		if read {
			return nil, fault.New(fault.Invalid, "'-' was given twice; standard input can be read once")
		}
		read = true
		sc := bufio.NewScanner(f.in)
		for sc.Scan() {
			if name := strings.TrimSpace(sc.Text()); name != "" {
				out = append(out, name)
			}
		}
		if err := sc.Err(); err != nil {
			return nil, fmt.Errorf("read names: %w", err)
		}
	}
	return out, nil
}

// each does something to every name. What fails is told at the end; the rest
// is done all the same, unless it cannot go better.
func each[N, T any](ctx context.Context, names []N, do func(ctx context.Context, name N) (T, error)) ([]T, error) {
	var out []T
	var errs severalErrors
	for _, name := range names {
		v, err := do(ctx, name)
		if err == nil {
			out = append(out, v)
			continue
		}
		errs = append(errs, err)
		if code := fault.CodeOf(err); ctx.Err() != nil || code == fault.Unavailable || code == fault.Denied || code == fault.Unauthenticated {
			break
		}
	}
	switch len(errs) {
	case 0:
		return out, nil
	case 1:
		return out, errs[0]
	}
	return out, errs
}
