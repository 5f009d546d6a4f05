package cli

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// logsWindow is the stretch of time that flags put into a query, and where
// times are read and shown.
type logsWindow struct {
	since, until string
	utc          bool
}

func (w *logsWindow) flags(cmd *cobra.Command, f *factory) {
	w.bounds(cmd, f)
	cmd.Flags().BoolVar(&w.utc, "utc", false, "read and show times in UTC")
}

func (w *logsWindow) bounds(cmd *cobra.Command, _ *factory) {
	cmd.Flags().StringVar(&w.since, "since", "", "begin then: 1h, 7d, 15:04, yesterday, 2026-01-31 or RFC 3339")
	cmd.Flags().StringVar(&w.until, "until", "", "end before then, written as --since")
	when := cobra.FixedCompletions([]string{"15m", "1h", "1d", "7d", "today", "yesterday"}, cobra.ShellCompDirectiveNoFileComp)
	_ = cmd.RegisterFlagCompletionFunc("since", when)
	_ = cmd.RegisterFlagCompletionFunc("until", when)
}

// query joins what a command, the words and the flags ask for.
func (w *logsWindow) query(f *factory, scope string, words []string) (string, error) {
	parts := slices.Clone(words)
	if scope != "" {
		parts = append([]string{scope}, parts...)
	}
	now := logsNow(f, w.utc)
	for _, b := range []struct{ name, value string }{{"since", w.since}, {"until", w.until}} {
		if b.value != "" {
			parts = append(parts, b.name+"="+logsTime(b.value, now))
		}
	}
	query := strings.TrimSpace(strings.Join(parts, " "))
	if strings.ContainsRune(query, 0) {
		return "", fault.New(fault.Invalid, "the query contains a NUL character").WithHint("leave it out: no line has one")
	}
	if !utf8.ValidString(query) {
		return "", fault.New(fault.Invalid, "the query is not UTF-8").WithHint("what is not UTF-8 in a line is kept as \ufffd, and can be asked for as that")
	}
	if n := len(url.QueryEscape(query)); n > maxLogsQuery {
		return "", fault.New(fault.Invalid, "the query is too long: %d bytes as they are sent, and %d are the most", n, maxLogsQuery).
			WithHint("put alternatives into one list, as in user=alice,bob, or ask in several queries")
	}
	return query, nil
}

// maxLogsQuery is how much of a request's head a query may take: vpnd reads
// 16 KiB of it.
const maxLogsQuery = 15 << 10

// logsTime writes a local time with its zone, which vpnd does not know. What
// has no zone, or is no time, is for vpnd to understand.
func logsTime(v string, now time.Time) string {
	day := func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location()) }
	switch v {
	case "today":
		return day(now).Format(time.RFC3339)
	case "yesterday":
		return day(now.AddDate(0, 0, -1)).Format(time.RFC3339)
	}
	for _, layout := range []string{"15:04", "15:04:05", time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		t, err := time.ParseInLocation(layout, v, now.Location())
		if err != nil {
			continue
		}
		if strings.HasPrefix(layout, "15") {
			t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		}
		return t.Format(time.RFC3339)
	}
	return logsValue(v)
}

// bareValue needs no quotes in a query.
var bareValue = regexp.MustCompile(`^[A-Za-z0-9_.:@/+-]+$`)

// logsValue writes any text as a value of a query.
func logsValue(s string) string {
	if bareValue.MatchString(s) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}

// columnIn finds the place of a mistake in what vpnd says about it.
var columnIn = regexp.MustCompile(`\bcolumn (\d+): `)

// pointAt shows the query with a mark under the mistake. Programs get the
// column in the error's fields.
func (f *factory) pointAt(query string, err error) error {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != fault.Invalid || f.wantsJSON() {
		return err
	}
	text := e.Message
	for _, fd := range e.Fields {
		if fd.Path == "query" || strings.HasSuffix(fd.Path, ".query") || fd.Path == "query.q" {
			text = fd.Message
		}
	}
	m := columnIn.FindStringSubmatchIndex(text)
	if m == nil {
		return err
	}
	column, aerr := strconv.Atoi(text[m[2]:m[3]])
	if aerr != nil {
		return err
	}
	line, mark := caret(query, column, f.caretWidth())
	shown := *e
	shown.Fields, shown.Message = nil, fmt.Sprintf("the query is wrong at column %d: %s\n  %s\n  %s", column, view.Clean(text[m[1]:]), line, mark)
	return &shown
}

func (f *factory) caretWidth() int {
	if w, _ := f.size(); f.errTTY && w > 20 {
		return w - 4
	}
	return 76
}

// caret cuts a query to width cells around a column, counted in characters
// from 1, and gives the line that marks it.
func caret(query string, column, width int) (line, mark string) {
	runes := []rune(query)
	at := min(max(column-1, 0), len(runes))
	from := at
	for room := width * 2 / 3; from > 0; from-- {
		if room -= view.Width(view.Clean(string(runes[from-1]))); room < 0 {
			break
		}
	}
	before := view.Clean(string(runes[from:at]))
	if from > 0 {
		before = "…" + before
	}
	// More than fits is not looked at: a query may be long.
	rest := view.Clean(string(runes[at:min(len(runes), at+width)]))
	return view.Fit(before+rest, width), strings.Repeat(" ", view.Width(before)) + "^"
}
