// Package fault is the one error that crosses process boundaries: a code from
// an append-only list, a sentence for people, a hint for what to do next.
//
// It owns the code table (code, HTTP status, exit status) and the
// application/problem+json form of an error. It leaves logging, transport and
// presentation to others. Values are immutable after construction; every
// function may be called concurrently.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code classifies an error. It is itself an error so that
// errors.Is(err, fault.NotFound) holds on both sides of a socket. The list is
// append-only: scripts and other people's clients depend on the spelling.
type Code string

// The codes. docs/errors.md shows them with their HTTP and exit statuses.
const (
	Internal        Code = "internal"
	Invalid         Code = "invalid"
	NotFound        Code = "not_found"
	Unauthenticated Code = "unauthenticated"
	Denied          Code = "denied"
	Exists          Code = "exists"
	Conflict        Code = "conflict"
	Exhausted       Code = "exhausted"
	Risk            Code = "risk"
	Unavailable     Code = "unavailable"
	Unimplemented   Code = "unimplemented"
	Timeout         Code = "timeout"
	Throttled       Code = "throttled"
	Canceled        Code = "canceled"
	Unhealthy       Code = "unhealthy"
	Differs         Code = "differs"
)

// Error makes a Code comparable with errors.Is.
func (c Code) Error() string { return string(c) }

// Field is one problem with one part of the input. Path is written the way the
// caller would write it: body.device.name, query.limit, [gateway] listen.
type Field struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// Error is the error that crosses processes. Build it with New or Wrap and the
// With methods.
type Error struct {
	Code       Code          // what kind, never empty
	Reason     string        // finer machine-readable word, such as "device_limit"; may be empty
	Message    string        // what happened, for people
	Hint       string        // what to do next, for people; may be empty
	RetryAfter time.Duration // when trying again makes sense; zero when it does not
	Fields     []Field       // what was wrong with the input; may be empty

	cause error // kept for logs on this side, never sent
}

// New builds an Error from a code and a formatted message.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap is New with a cause that stays on this side of the socket: logs see it,
// callers do not.
func Wrap(cause error, code Code, format string, args ...any) *Error {
	e := New(code, format, args...)
	e.cause = cause
	return e
}

// InvalidField is the commonest input error: one field, one problem.
func InvalidField(path, format string, args ...any) *Error {
	msg := fmt.Sprintf(format, args...)
	e := New(Invalid, "%s: %s", path, msg)
	e.Fields = []Field{{Path: path, Message: msg}}
	return e
}

// WithReason returns a copy with the machine-readable reason set.
func (e *Error) WithReason(reason string) *Error {
	c := *e
	c.Reason = reason
	return &c
}

// WithHint returns a copy with the hint set.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithRetryAfter returns a copy that tells the caller when to come back.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// WithFields returns a copy that lists problems with the input.
func (e *Error) WithFields(fields ...Field) *Error {
	c := *e
	c.Fields = append(append([]Field(nil), e.Fields...), fields...)
	return &c
}

// Error gives the message, and the cause where this process knows one.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Message == "" {
		b.WriteString(string(e.Code))
	} else {
		b.WriteString(e.Message)
	}
	if e.cause != nil {
		b.WriteString(": ")
		b.WriteString(e.cause.Error())
	}
	return b.String()
}

// Is matches a bare Code, so that errors.Is(err, fault.NotFound) works.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap gives the local cause.
func (e *Error) Unwrap() error { return e.cause }

// From classifies any error. An *Error in the chain is returned as it is,
// context errors become timeout and canceled, and everything else is internal:
// its text is for the log, not for the caller.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if c, ok := errors.AsType[Code](err); ok {
		return &Error{Code: c, Message: string(c), cause: err}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(err, Timeout, "the call took too long")
	case errors.Is(err, context.Canceled):
		return Wrap(err, Canceled, "the call was canceled")
	}
	return Wrap(err, Internal, "internal error")
}

// CodeOf is From(err).Code, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}

// ReasonOf is the reason of the Error in err's chain, or "".
func ReasonOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}
