package cli

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/view"
)

// jsonWriter writes lines as JSON, one object each.
type jsonWriter struct{ w io.Writer }

func jsonLines(w io.Writer) lineWriter { return jsonWriter{w} }

func (j jsonWriter) write(r logs.Record) error {
	data, err := jsonText(r, false)
	if err != nil {
		return err
	}
	_, err = j.w.Write(append(data, '\n'))
	return err
}

func (jsonWriter) flush() error { return nil }

// csvWriter writes lines as RFC 4180, for spreadsheets.
type csvWriter struct {
	w        *csv.Writer
	terminal bool
}

// csvLines writes the titles. On a terminal texts are made harmless for it.
func csvLines(w io.Writer, terminal bool) (lineWriter, error) {
	c := csvWriter{csv.NewWriter(w), terminal}
	return c, c.w.Write([]string{"id", "ts", "level", "service", "event", "message", "user", "device", "session", "request_id", "fields", "file", "cut"})
}

func (c csvWriter) write(r logs.Record) error {
	cells := []string{
		r.ID, r.Time.UTC().Format(time.RFC3339Nano), r.Level, r.Service, r.Event, r.Message, r.User, r.Device, r.Session, r.RequestID,
		string(r.Fields), r.File, strconv.FormatBool(r.Cut),
	}
	for i := range cells {
		if c.terminal {
			cells[i] = view.Clean(cells[i])
		}
		cells[i] = noFormula(cells[i])
	}
	return c.w.Write(cells)
}

func (c csvWriter) flush() error {
	c.w.Flush()
	return c.w.Error()
}

// noFormula keeps a spreadsheet from running a cell, as OWASP's page on CSV
// injection tells: it may begin with none of these, their wide forms included,
// nor may what is left when a careless reader takes quotes and spaces away.
func noFormula(s string) string {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(s, "\"' \u00a0\ufeff"))
	if s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
		return "'" + s
	}
	return s
}
