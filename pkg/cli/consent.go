package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// risk is something that cannot be undone or hurts others, with a name that
// has to be said.
type risk string

// The risks.
const (
	dropSessions risk = "drop-sessions"
	destroyData  risk = "destroy-data"
	lockOut      risk = "lock-out"
	openLane     risk = "open-lane"
)

func risks() []string {
	return []string{string(dropSessions), string(destroyData), string(lockOut), string(openLane)}
}

// consent is what was agreed to on the command line.
type consent struct {
	yes    bool
	accept []string
}

// flags declares -y and, for dangerous commands, --accept-risk.
func (c *consent) flags(cmd *cobra.Command, dangerous bool) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	if !dangerous {
		return
	}
	cmd.Flags().StringSliceVar(&c.accept, "accept-risk", nil, "accept named risks: "+strings.Join(risks(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("accept-risk", cobra.FixedCompletions(risks(), cobra.ShellCompDirectiveNoFileComp))
}

// question is what has to be agreed to before a change.
type question struct {
	what  string          // "delete user alice"
	risks map[risk]string // what each means here: "closes 2 open sessions"
	typed string          // what to type to agree to risks
}

// agree asks for what was not agreed to yet; only people at a terminal are
// asked, everybody else is told what to add.
func (f *factory) agree(c consent, q question) error {
	for _, a := range c.accept {
		if !slices.Contains(risks(), a) {
			return fault.New(fault.Invalid, "there is no risk %q", a).WithHint("the risks are %s", strings.Join(risks(), ", "))
		}
	}
	var missing []string
	for _, r := range risks() {
		if _, ok := q.risks[risk(r)]; ok && !slices.Contains(c.accept, r) {
			missing = append(missing, r)
		}
	}
	agreed := c.yes || len(q.risks) > 0 // an accepted risk is an answer too
	if len(missing) == 0 && agreed {
		return nil
	}
	if !f.inTTY || !f.errTTY {
		return refusal(q, missing)
	}
	return f.ask(q, missing)
}

func refusal(q question, missing []string) error {
	if len(missing) == 0 {
		return fault.New(fault.Risk, "not confirmed: %s", q.what).WithHint("add -y to confirm")
	}
	why := make([]string, len(missing))
	for i, m := range missing {
		why[i] = q.risks[risk(m)]
	}
	return fault.New(fault.Risk, "%s: refused, because it %s", q.what, strings.Join(why, " and ")).
		WithReason(strings.Join(missing, ",")).WithHint("add --accept-risk=%s if that is wanted", strings.Join(missing, ","))
}

func (f *factory) ask(q question, missing []string) error {
	th := f.errTheme()
	for _, m := range missing {
		fmt.Fprintf(f.err, "%s %s: %s\n", th.Paint(th.Mark(view.Caution), view.Warn), th.Paint(m, view.Warn), view.Clean(q.risks[risk(m)]))
	}
	want := ""
	if len(missing) > 0 {
		want = q.typed
		fmt.Fprintf(f.err, "To %s, type %s: ", view.Clean(q.what), th.Paint(view.Clean(want), view.Strong))
	} else {
		fmt.Fprintf(f.err, "Really %s? [y/N] ", view.Clean(q.what))
	}
	answer, err := readLine(f.in)
	if err != nil {
		return err
	}
	if want == "" && (strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes")) || want != "" && answer == want {
		return nil
	}
	return fault.New(fault.Risk, "not confirmed; nothing was changed")
}

// readLine reads to the end of the line and nothing beyond.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(onebyte{r}, 16).ReadString('\n')
	if err != nil && line == "" {
		return "", fault.Wrap(err, fault.Risk, "not confirmed; nothing was changed")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// onebyte keeps a buffer from taking more than the line.
type onebyte struct{ io.Reader }

func (o onebyte) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return o.Reader.Read(p)
}

// several names things in a sentence.
func several(one string, names []string) string {
	switch len(names) {
	case 1:
		return one + " " + names[0]
	case 2, 3:
		return one + "s " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
	}
	return fmt.Sprintf("%d %ss", len(names), one)
}
