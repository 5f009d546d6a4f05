package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// errorObject is how an error looks with -o json.
type errorObject struct {
	Error struct {
		Code       fault.Code    `json:"code"`
		Reason     string        `json:"reason,omitempty"`
		Message    string        `json:"message"`
		Hint       string        `json:"hint,omitempty"`
		RetryAfter int           `json:"retry_after,omitempty"`
		Fields     []fault.Field `json:"fields,omitempty"`
	} `json:"error"`
}

func (f *factory) printError(err error) {
	e := f.explain(err)
	if f.wantsJSON() {
		var o errorObject
		o.Error.Code, o.Error.Reason, o.Error.Message, o.Error.Hint = e.Code, e.Reason, e.Message, e.Hint
		o.Error.RetryAfter, o.Error.Fields = fault.RetrySeconds(e.RetryAfter), e.Fields
		data, _ := jsonText(o, false) // always encodes
		fmt.Fprintln(f.err, string(data))
		return
	}
	th := f.errTheme()
	fmt.Fprintln(f.err, th.Paint("error:", view.Bad)+" "+cleanLines(e.Message))
	if e.Hint != "" {
		fmt.Fprintln(f.err, th.Paint("hint:", view.Notice)+" "+cleanLines(e.Hint))
	}
}

func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = view.Clean(l)
	}
	return strings.Join(lines, "\n")
}

// explain is fault.From with what only this side knows: our own mistakes are
// shown as they are, and a socket that is not there has a reason.
func (f *factory) explain(err error) *fault.Error {
	var known *fault.Error
	if !errors.As(err, &known) {
		switch from := fault.From(err); from.Code {
		case fault.Internal:
			return fault.Wrap(err, fault.Internal, "%s", err.Error())
		default:
			return from
		}
	}
	e := *known
	if len(e.Fields) > 0 {
		e.Message = fieldsMessage(e)
		if e.Hint == "" {
			e.Hint = "the command's --help says what it takes"
		}
	}
	if e.Code == fault.Internal && e.Unwrap() != nil { // a mistake on this side
		e.Message = e.Error()
	}
	switch {
	case e.Code != fault.Unavailable || e.Hint != "":
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		e.Message, e.Hint = "vpnd does not run: nobody answers at "+f.host, "systemctl start vpnd, or vpnctl --host for another place"
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Message = fault.Denied, "this account may not open "+f.host
		e.Hint = "run as root, or as a member of vpnd's admin or view group"
	}
	return &e
}

// fieldsMessage speaks of fields the way people know them here.
func fieldsMessage(e fault.Error) string {
	parts := make([]string, len(e.Fields))
	for i, fd := range e.Fields {
		_, path, ok := strings.Cut(fd.Path, ".")
		if !ok || !slices.Contains([]string{"body", "path", "query"}, strings.SplitN(fd.Path, ".", 2)[0]) {
			path = fd.Path
		}
		parts[i] = strings.ReplaceAll(path, "_", "-") + ": " + plainly(fd.Message)
	}
	return strings.Join(parts, "; ")
}

// validatorWords are what the validator of requests says, and what it means.
var validatorWords = []struct {
	said  *regexp.Regexp
	means string
}{
	{regexp.MustCompile(`^expected length >= (\d+)$`), "is too short: at least $1 characters are needed"},
	{regexp.MustCompile(`^expected length <= (\d+)$`), "is too long: at most $1 characters are allowed"},
	{regexp.MustCompile(`^expected array length >= (\d+)$`), "has too few entries: at least $1 needed"},
	{regexp.MustCompile(`^expected array length <= (\d+)$`), "has too many entries: at most $1 allowed"},
	{regexp.MustCompile(`^expected number >= (\S+)$`), "must be $1 or more"},
	{regexp.MustCompile(`^expected number <= (\S+)$`), "must be $1 or less"},
	{regexp.MustCompile(`^expected value to be one of "(.*)"$`), "must be one of $1"},
	{regexp.MustCompile(`^expected string to match pattern .*$`), "is not written as it should be"},
	{regexp.MustCompile(`^expected string to be (.*)$`), "must be $1"},
}

// plainly is a word of the validator for people.
func plainly(message string) string {
	for _, w := range validatorWords {
		if w.said.MatchString(message) {
			return w.said.ReplaceAllString(message, w.means)
		}
	}
	return message
}
