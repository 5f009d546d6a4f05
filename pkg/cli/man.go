package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newMan prints a manual page. It is for whoever builds packages, so the help
// does not list it.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use: "man " + logsPageName, Short: "Print a manual page", Hidden: true, ValidArgs: []string{logsPageName},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != logsPageName {
				return usageError(cmd, "the one page is %s", logsPageName)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), logsManual(cmd.Root()))
			return err
		},
	}
}

// roff is a manual page that grows, in the macros of man(7).
type roff struct{ b strings.Builder }

// macro writes a line that is a request to the formatter.
func (r *roff) macro(name string, args ...string) {
	r.b.WriteString("." + name)
	for _, a := range args {
		r.b.WriteString(` "` + strings.ReplaceAll(roffText(a), `"`, `\(dq`) + `"`)
	}
	r.b.WriteByte('\n')
}

// text writes a line of text. What would be a request at its beginning is none.
func (r *roff) text(s string) {
	s = roffText(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	r.b.WriteString(s + "\n")
}

// verbatim writes lines as they are.
func (r *roff) verbatim(lines []string) {
	r.macro("PP")
	r.macro("RS", "4")
	r.macro("nf")
	for _, l := range lines {
		r.text(l)
	}
	r.macro("fi")
	r.macro("RE")
}

// prose writes help text: paragraphs, and what is indented as it is.
func (r *roff) prose(s string) {
	var block []string
	verbatim := false
	flush := func() {
		switch {
		case len(block) == 0:
		case verbatim:
			r.verbatim(block)
		default:
			r.macro("PP")
			for _, l := range block {
				r.text(l)
			}
		}
		block = nil
	}
	for l := range strings.Lines(s) {
		l = strings.TrimRight(l, "\n")
		if l == "" {
			flush()
			continue
		}
		if indented := strings.HasPrefix(l, "  "); indented != verbatim {
			flush()
			verbatim = indented
		}
		block = append(block, strings.TrimPrefix(l, "  "))
	}
	flush()
}

// tagged writes a term with what is said about it below.
func (r *roff) tagged(term, what string) {
	r.macro("TP")
	r.b.WriteString(`\fB` + roffText(term) + "\\fR\n")
	r.text(what)
}

// roffText escapes what the formatter would take for its own, and writes what
// is not ASCII so that every one of them knows it.
func roffText(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\e`)
		case c == '-':
			b.WriteString(`\-`)
		case c == '\'':
			b.WriteString(`\(aq`)
		case c == '^':
			b.WriteString(`\(ha`)
		case c == '~':
			b.WriteString(`\(ti`)
		case c == '`':
			b.WriteString(`\(ga`)
		case c > '~':
			fmt.Fprintf(&b, `\[u%04X]`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
