package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// outputs are the values of -o.
func outputs() []string { return []string{"table", "wide", "json", "jsonl", "yaml", "name"} }

// listObject is the shape of every list.
type listObject[T any] struct {
	Items []T `json:"items"`
	Total int `json:"total"`
}

// printList prints a list in the form that was asked for.
func printList[T any](f *factory, t view.Table[T], l *rpc.List[T]) error {
	items := l.Items
	if items == nil {
		items = []T{}
	}
	switch f.output {
	case "json", "yaml":
		return f.printObject(listObject[T]{items, max(l.Total, len(items))})
	case "table", "wide":
		if f.outTTY && len(items) == 0 {
			f.note("no %s", plural(t.Noun))
			return nil
		}
	}
	if err := printItems(f, t, items); err != nil {
		return err
	}
	if l.Total > len(items) {
		f.note("%d of %d %s are shown; --limit 0 shows all", len(items), l.Total, plural(t.Noun))
	}
	return nil
}

func plural(noun string) string {
	if s, ok := strings.CutSuffix(noun, "y"); ok && s != "" && !strings.ContainsRune("aeiou", rune(s[len(s)-1])) {
		return s + "ies"
	}
	return noun + "s"
}

// printItems prints items one after the other: rows, lines or documents.
func printItems[T any](f *factory, t view.Table[T], items []T) error {
	switch f.output {
	case "json", "jsonl":
		for _, v := range items {
			if err := f.printLine(v); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		for _, v := range items {
			if _, err := fmt.Fprintln(f.out, "---"); err != nil {
				return err
			}
			if err := f.printObject(v); err != nil {
				return err
			}
		}
		return nil
	case "name":
		return f.printLines(names(t, items))
	}
	return f.printLines(rows(f, t, items))
}

func names[T any](t view.Table[T], items []T) []string {
	out := make([]string, len(items))
	for i, v := range items {
		out[i] = view.Clean(t.Name(v))
	}
	return out
}

// rows are a table's lines: aligned under titles on a terminal, separated by
// tabs and without titles elsewhere.
func rows[T any](f *factory, t view.Table[T], items []T) []string {
	cols := t.At(f.detail())
	if !f.outTTY {
		return view.Tabs(cols, items, f.now())
	}
	return view.Lines(cols, items, f.now(), f.width(), f.theme())
}

// width of the terminal; -o wide may be wider.
func (f *factory) width() int {
	if f.output == "wide" {
		return 0
	}
	w, _ := f.size()
	return w
}

func (f *factory) detail() view.Detail {
	if f.output == "wide" {
		return view.Wide
	}
	return view.Narrow
}

// printOne prints one thing: a page of its properties for people.
func printOne[T any](f *factory, t view.Table[T], v T) error {
	switch f.output {
	case "json", "yaml":
		return f.printObject(v)
	case "table", "wide":
		return f.printLines(page(f, t, v, false))
	}
	return printItems(f, t, []T{v})
}

// page shows one thing; cut gives every property one line at most.
func page[T any](f *factory, t view.Table[T], v T, cut bool) []string {
	cols := t.At(view.Page)
	if !f.outTTY {
		return view.PageTabs(cols, v, f.now())
	}
	return view.PageLines(cols, v, f.now(), f.width(), cut, f.theme())
}

// printPages prints what was asked for by name: one thing as itself, several
// as a list.
func printPages[T any](f *factory, t view.Table[T], asked int, items []T) error {
	if len(items) == 0 && asked > 0 {
		return nil // what went wrong is told as an error
	}
	if asked == 1 && len(items) == 1 {
		return printOne(f, t, items[0])
	}
	if f.output != "table" && f.output != "wide" {
		return printList(f, t, &rpc.List[T]{Items: items, Total: len(items)})
	}
	for i, v := range items {
		if i > 0 {
			fmt.Fprintln(f.out)
		}
		if err := f.printLines(page(f, t, v, false)); err != nil {
			return err
		}
	}
	return nil
}

// printChanged prints what a change did to the things that were named: one
// as itself, several as a list; a table row each for people.
func printChanged[T any](f *factory, t view.Table[T], asked int, items []T) error {
	if len(items) == 0 {
		return nil
	}
	if asked == 1 && (f.output == "json" || f.output == "yaml") {
		return f.printObject(items[0])
	}
	return printList(f, t, &rpc.List[T]{Items: items, Total: len(items)})
}

func (f *factory) printLines(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(f.out, strings.Join(lines, "\n"))
	return err
}

// printLine prints v as one line of JSON.
func (f *factory) printLine(v any) error {
	data, err := jsonText(v, false)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f.out, string(data))
	return err
}

// printObject prints v as indented JSON or YAML.
func (f *factory) printObject(v any) error {
	if f.output == "yaml" {
		text, err := yamlText(v)
		if err != nil {
			return err
		}
		_, err = f.out.Write(text)
		return err
	}
	data, err := jsonText(v, true)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f.out, string(data))
	return err
}

// jsonText encodes v; characters that a terminal might obey are written as
// escapes, which means the same to every program.
func jsonText(v any, indent bool) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("print as JSON: %w", err)
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return escaped(data, func(out *bytes.Buffer, r rune) {
		if r > 0xffff {
			r -= 0x10000
			fmt.Fprintf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		} else {
			fmt.Fprintf(out, `\u%04x`, r)
		}
	}), nil
}

// escaped has what a terminal might obey written by escape.
func escaped(data []byte, escape func(*bytes.Buffer, rune)) []byte {
	if bytes.IndexFunc(data, obeyed) < 0 {
		return data
	}
	var out bytes.Buffer
	for _, r := range string(data) {
		if obeyed(r) {
			escape(&out, r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.Bytes()
}

func obeyed(r rune) bool {
	return r != '\n' && r >= 0x7f && !unicode.IsPrint(r) && r != unicode.ReplacementChar
}

// yamlText is the JSON of v as YAML: same names, same values, same order.
func yamlText(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	node, err := yamlNode(dec)
	if err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	return escaped(b.Bytes(), func(out *bytes.Buffer, r rune) { // only inside double quotes, see yamlNode
		if r > 0xffff {
			fmt.Fprintf(out, `\U%08x`, r)
		} else {
			fmt.Fprintf(out, `\u%04x`, r)
		}
	}), nil
}

// yamlNode reads the next JSON value. The YAML reader would not do: not every
// text that JSON can hold may stand in YAML as it is.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch t := t.(type) {
	case json.Delim:
		if n.Kind = yaml.SequenceNode; t == '{' {
			n.Kind = yaml.MappingNode
		}
		for dec.More() {
			sub, err := yamlNode(dec)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, sub)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err := dec.Token() // its end
		return n, err
	case string:
		n.Tag, n.Value = "!!str", t
		if strings.IndexFunc(t, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			n.Style = yaml.DoubleQuotedStyle
		}
	case nil:
		n.Tag, n.Value = "!!null", "null"
	default:
		n.Value = fmt.Sprint(t)
	}
	return n, nil
}
