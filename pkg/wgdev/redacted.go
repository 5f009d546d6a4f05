package wgdev

import (
	"encoding/base64"
	"fmt"
	"log/slog"

	"vpnd/pkg/secret"
)

// redacted is 32 secret bytes that no print, log or encoder shows.
type redacted struct{ b [KeySize]byte }

// Reveal gives the key in base64, and "" for the zero value. Each call site is a
// place to audit.
func (r redacted) Reveal() string {
	if r.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(r.b[:])
}

// IsZero tells whether no key is set.
func (r redacted) IsZero() bool { return r.b == [KeySize]byte{} }

// String prints (redacted).
func (r redacted) String() string { return secret.Redacted }

// GoString prints (redacted).
func (r redacted) GoString() string { return secret.Redacted }

// Format prints (redacted) for every verb.
func (r redacted) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(secret.Redacted)) }

// LogValue prints (redacted).
func (r redacted) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// MarshalJSON prints (redacted).
func (r redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + secret.Redacted + `"`), nil }

// MarshalText prints (redacted).
func (r redacted) MarshalText() ([]byte, error) { return []byte(secret.Redacted), nil }
