package client

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"vpnd/pkg/fault"
)

// output is the form of what commands print.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

// String, Set and Type make it a flag.
func (o *output) String() string {
	if *o == "" {
		return string(outputTable)
	}
	return string(*o)
}

// Set takes the flag's value.
func (o *output) Set(s string) error {
	switch output(s) {
	case outputTable, outputJSON:
		*o = output(s)
		return nil
	}
	return fmt.Errorf("%q is neither table nor json", s)
}

// Type names the kind of value in help texts.
func (o *output) Type() string { return "FORMAT" }

func (f *factory) json() bool { return f.output == outputJSON }

// print shows v: as JSON, or as rows of a name and a value.
func (f *factory) print(v any, rows func(row func(name, format string, args ...any))) error {
	if f.json() {
		enc := json.NewEncoder(f.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(f.out, 0, 4, 2, ' ', 0)
	rows(func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, clean(fmt.Sprintf(format, args...)))
	})
	return w.Flush()
}

// note tells people something that is not data.
func (f *factory) note(format string, args ...any) {
	if !f.json() {
		fmt.Fprintln(f.err, clean(fmt.Sprintf(format, args...)))
	}
}

type errorBody struct {
	Code    fault.Code `json:"code"`
	Reason  string     `json:"reason,omitempty"`
	Message string     `json:"message"`
	Hint    string     `json:"hint"`
}

func (f *factory) printError(err error) {
	e := fault.From(err)
	if f.json() {
		_ = json.NewEncoder(f.err).Encode(struct { // nobody is left to tell
			Error errorBody `json:"error"`
		}{errorBody{e.Code, e.Reason, clean(err.Error()), clean(e.Hint)}})
		return
	}
	writeError(f.err, err.Error(), e.Hint)
}

func writeError(w io.Writer, message, hint string) {
	fmt.Fprintf(w, "vpn: %s\n", clean(message))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", clean(hint))
	}
}

// clean keeps text of a server from commanding the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf) {
			return '?'
		}
		return r
	}, s)
}
