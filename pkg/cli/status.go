package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/control"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

type statusOptions struct {
	check string
	watch bool
}

func newStatus(f *factory) *cobra.Command {
	o := &statusOptions{}
	cmd := &cobra.Command{
		Use: "status", Short: "Show everything on one screen",
		Long: `Show everything on one screen: lanes, people, services and problems with what to
do about them. With --check nothing but the verdict is printed, and the exit
status is 9 when it is bad:

  live   vpnd answers
  ready  every service is ready and the lanes work
  all    nothing wants attention`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), f, o) },
	}
	cmd.Flags().StringVar(&o.check, "check", "", "only check: "+strings.Join(checks(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("check", cobra.FixedCompletions(checks(), cobra.ShellCompDirectiveNoFileComp))
	watchFlag(cmd, &o.watch)
	return cmd
}

func runStatus(ctx context.Context, f *factory, o *statusOptions) error {
	if o.check != "" {
		return runCheck(ctx, f, o.check)
	}
	get := func(ctx context.Context) (*control.Status, error) { return call(ctx, f, control.GetStatus, nil) }
	draw := func(ctx context.Context) ([]string, error) {
		s, err := get(ctx)
		if err != nil {
			return nil, err
		}
		return statusLines(f, s), nil
	}
	if !o.watch {
		s, err := get(ctx)
		if err != nil {
			return err
		}
		return printStatus(f, s)
	}
	if f.redraws() {
		return f.redraw(ctx, draw)
	}
	return appendChanges(ctx, f, func(*control.Status) string { return "status" },
		func(ctx context.Context) ([]*control.Status, error) {
			s, err := get(ctx)
			return []*control.Status{s}, err
		},
		func(s *control.Status) error {
			if f.output == "json" {
				return f.printLine(s)
			}
			return printStatus(f, s)
		},
		func(s *control.Status) *control.Status { // the clock alone is no change
			still := *s
			still.Time = time.Time{}
			still.Services = slices.Clone(s.Services)
			for i := range still.Services {
				still.Services[i].PingMicros = 0
			}
			return &still
		})
}

func printStatus(f *factory, s *control.Status) error {
	switch f.output {
	case "json", "yaml":
		return f.printObject(s)
	case "jsonl":
		return f.printLine(s)
	case "name":
		return f.printLines([]string{"vpnd"})
	}
	return f.printLines(statusLines(f, s))
}

func statusLines(f *factory, s *control.Status) []string {
	if !f.outTTY {
		return view.StatusTabs(s)
	}
	w, _ := f.size()
	return view.Status(s, f.detail(), f.now(), w, f.theme())
}

func checks() []string { return []string{"live", "ready", "all"} }

// verdict is what --check prints.
type verdict struct {
	Check    string            `json:"check"`
	OK       bool              `json:"ok"`
	Problems []control.Problem `json:"problems"`
}

func verdicts() view.Table[verdict] {
	return view.Table[verdict]{
		Noun: "check",
		Name: func(v verdict) string { return v.Check },
		Columns: []view.Column[verdict]{
			{Title: "CHECK", Cell: func(v verdict, _ time.Time) view.Cell { return view.Text(v.Check) }},
			{Title: "RESULT", Cell: func(v verdict, _ time.Time) view.Cell {
				if v.OK {
					return view.Cell{Text: "ok", Symbol: view.Check, Tone: view.Good}
				}
				return view.Cell{Text: "bad", Symbol: view.Cross, Tone: view.Bad}
			}},
			{Title: "PROBLEMS", Cell: func(v verdict, _ time.Time) view.Cell {
				what := make([]string, len(v.Problems))
				for i, p := range v.Problems {
					what[i] = p.What
				}
				return view.Or(strings.Join(what, "; "))
			}},
		},
	}
}

func runCheck(ctx context.Context, f *factory, check string) error {
	if !slices.Contains(checks(), check) {
		return fault.New(fault.Invalid, "there is no check %q", check).WithHint("the checks are %s", strings.Join(checks(), ", "))
	}
	v := verdict{Check: check, Problems: []control.Problem{}}
	s, err := call(ctx, f, control.GetStatus, nil)
	if err != nil {
		return err
	}
	switch check {
	case "ready":
		v.Problems = append(v.Problems, notReady(s)...)
	case "all":
		v.Problems = append(v.Problems, s.Problems...)
	}
	v.OK = len(v.Problems) == 0
	if err := printOne(f, verdicts(), v); err != nil {
		return err
	}
	if !v.OK {
		return quietExit{fault.Unhealthy}
	}
	return nil
}

// notReady lists what keeps people from connecting.
func notReady(s *control.Status) []control.Problem {
	var out []control.Problem
	if len(s.Services) == 0 {
		out = append(out, control.Problem{What: "the services cannot be asked for"})
	}
	for _, v := range s.Services {
		if v.Enabled && v.State != "ready" && v.State != "running" && v.State != "disabled" {
			out = append(out, control.Problem{What: fmt.Sprintf("service %s is %s", v.Name, v.State), Hint: "vpnctl service get " + v.Name})
		}
	}
	if len(s.Lanes) == 0 {
		out = append(out, control.Problem{What: "the lanes cannot be asked for", Hint: "vpnctl service get lanes"})
	}
	for _, l := range s.Lanes {
		if l.State != "up" && l.State != "blocked" && l.State != "maintenance" {
			out = append(out, control.Problem{What: fmt.Sprintf("lane %s is %s", l.Name, l.State), Hint: "vpnctl status"})
		}
	}
	return out
}
