package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// rawOutput is a value of -o that only log lines have.
const rawOutput = "raw"

const rawAnnotation = "prints raw"

// allowRaw lets a command take -o raw.
func allowRaw(cmd *cobra.Command) { cmd.Annotations = map[string]string{rawAnnotation: "yes"} }

// outputsOf are the values of -o that a command takes.
func outputsOf(cmd *cobra.Command) []string {
	if cmd.Annotations[rawAnnotation] == "" {
		return outputs()
	}
	return append(outputs(), rawOutput)
}

// linePrinter prints log lines one after the other.
type linePrinter struct {
	f      *factory
	now    func() time.Time
	layout view.LogLayout
}

func (w *logsWindow) printer(f *factory) *linePrinter {
	p := &linePrinter{f: f, now: func() time.Time { return logsNow(f, w.utc) }}
	width, _ := f.size()
	p.layout = view.LogLayout{Width: width, Wrap: f.output == "wide", Theme: f.theme()}
	return p
}

// list prints lines as a list.
func (p *linePrinter) list(l *rpc.List[logs.Record]) error {
	switch p.f.output {
	case "json", "yaml":
		return printList(p.f, view.Logs(), l)
	}
	if len(l.Items) == 0 && p.f.outTTY {
		p.f.note("no lines match")
	}
	return p.print(l.Items)
}

// print prints lines under those before.
func (p *linePrinter) print(lines []logs.Record) error {
	switch {
	case p.f.output == rawOutput:
		for _, r := range lines {
			data, err := rawLine(r)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(p.f.out, string(data)); err != nil {
				return err
			}
		}
		return nil
	case p.f.redraws():
		return p.f.printLines(p.layout.Lines(lines, p.now()))
	}
	return printItems(p.f, view.Logs(), lines)
}

// rawLine is a line as it was written: one object with all its keys. A key
// that is there already is named fields.KEY.
func rawLine(r logs.Record) ([]byte, error) {
	var b bytes.Buffer
	var taken []string
	add := func(key string, v any) error {
		for slices.Contains(taken, key) {
			key = "fields." + key
		}
		taken = append(taken, key)
		name, err := jsonText(key, false)
		if err != nil {
			return err
		}
		value, err := jsonText(v, false)
		if err != nil {
			return err
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
		return nil
	}
	if err := add("ts", r.Time); err != nil {
		return nil, err
	}
	for _, known := range []struct{ key, value string }{
		{"level", r.Level}, {"service", r.Service}, {"event", r.Event}, {"message", r.Message},
		{"user", r.User}, {"device", r.Device}, {"session", r.Session}, {"request_id", r.RequestID},
	} {
		if known.value == "" {
			continue
		}
		if err := add(known.key, known.value); err != nil {
			return nil, err
		}
	}
	for _, fd := range view.MoreLogFields(r.Fields) {
		if err := add(fd.Key, json.RawMessage(fd.JSON)); err != nil {
			return nil, err
		}
	}
	return append(append([]byte{'{'}, b.Bytes()...), '}'), nil
}
