// Package secret holds values that must not be printed. It owns redaction and
// wiping; it leaves storage and transport to others. A Text is immutable and
// may be used concurrently.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Redacted is what a secret prints as, everywhere.
const Redacted = "(redacted)"

// Text is a secret string: a password, a token. The zero value is empty.
// Only Reveal gives the content.
type Text struct{ v string }

// New wraps s.
func New(s string) Text { return Text{s} }

// Reveal gives the content. Each call site is a place to audit.
func (t Text) Reveal() string { return t.v }

// Empty tells whether there is nothing inside.
func (t Text) Empty() bool { return t.v == "" }

// Len is the length in bytes.
func (t Text) Len() int { return len(t.v) }

// Equal compares in constant time for equal lengths.
func (t Text) Equal(o Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.v), []byte(o.v)) == 1
}

// String prints (redacted).
func (t Text) String() string { return Redacted }

// GoString prints (redacted).
func (t Text) GoString() string { return Redacted }

// Format prints (redacted) for every verb.
func (t Text) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(Redacted)) }

// LogValue prints (redacted).
func (t Text) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON prints (redacted): a secret that must travel is sent by a field
// of type string, filled with Reveal where it is sent.
func (t Text) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText prints (redacted).
func (t Text) MarshalText() ([]byte, error) { return []byte(Redacted), nil }
