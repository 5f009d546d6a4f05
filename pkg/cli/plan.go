package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// step is one line of what --dry-run prints.
type step struct {
	Action string   `json:"action"`
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	ID     string   `json:"id,omitempty"`
	Change bool     `json:"change"`
	Detail string   `json:"detail,omitempty"`
	Risks  []string `json:"risks,omitempty"`
}

func plans() view.Table[step] {
	return view.Table[step]{
		Noun: "step",
		Name: func(s step) string { return s.Name },
		Columns: []view.Column[step]{
			{Title: "ACTION", Cell: func(s step, _ time.Time) view.Cell {
				if !s.Change {
					return view.Cell{Text: "nothing", Tone: view.Faint}
				}
				return view.Cell{Text: s.Action, Tone: view.Warn}
			}},
			{Title: "WHAT", Cell: func(s step, _ time.Time) view.Cell { return view.Text(s.Kind + " " + s.Name) }},
			{Title: "DETAIL", Shrink: true, Cell: func(s step, _ time.Time) view.Cell { return view.Or(s.Detail) }},
			{Title: "RISKS", Cell: func(s step, _ time.Time) view.Cell { return view.Or(strings.Join(s.Risks, ",")) }},
			{Title: "ID", Detail: view.Wide, Cell: func(s step, _ time.Time) view.Cell { return view.Or(s.ID) }},
		},
	}
}

// dryRunFlag declares --dry-run.
func dryRunFlag(cmd *cobra.Command, dry *bool) {
	cmd.Flags().BoolVar(dry, "dry-run", false, "print what would be done and exit 10 if that is something")
}

// printPlan prints the steps; something to do is exit status 10.
func (f *factory) printPlan(steps []step, err error) error {
	if len(steps) > 0 {
		if perr := printList(f, plans(), &rpc.List[step]{Items: steps, Total: len(steps)}); perr != nil {
			return perr
		}
	}
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.Change {
			return quietExit{fault.Differs}
		}
	}
	return nil
}

// outcome is what is told of a change that leaves nothing to show.
type outcome struct {
	Action string `json:"action"`
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	ID     string `json:"id,omitempty"`
	Change bool   `json:"change"`
}

func outcomes() view.Table[outcome] {
	return view.Table[outcome]{Noun: "change", Name: func(o outcome) string { return o.Name }}
}

// printOutcomes tells people in a sentence on standard error, and programs in
// the form they asked for.
func (f *factory) printOutcomes(asked int, all []outcome) error {
	if f.output == "table" || f.output == "wide" {
		for _, o := range all {
			if o.Change {
				f.note("%s %s %s", o.Kind, o.Name, o.Action)
			} else {
				f.note("%s %s: nothing to do", o.Kind, o.Name)
			}
		}
		return nil
	}
	return printChanged(f, outcomes(), asked, all)
}
