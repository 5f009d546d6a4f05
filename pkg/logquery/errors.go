package logquery

import (
	"fmt"

	"vpnd/pkg/fault"
)

// Error is a mistake in a query, with its place. It is fault.Invalid for the
// field query: errors.Is and errors.As see through it.
type Error struct {
	Column  int    // of the mistake, in runes, from 1
	Message string // what is wrong
	Hint    string // what to write instead
}

func (e *Error) Error() string { return fmt.Sprintf("query, column %d: %s", e.Column, e.Message) }

// Unwrap is the error as it crosses processes.
func (e *Error) Unwrap() error {
	return fault.InvalidField("query", "column %d: %s", e.Column, e.Message).WithHint("%s", e.Hint)
}
