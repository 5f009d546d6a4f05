package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vpnd/pkg/api/id"
	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
)

const (
	nonceBytes    = 16
	maxLogin      = 254
	maxPassword   = 1024
	maxDeviceName = 64
	maxDeviceOS   = 32
	maxDeviceID   = 64
)

type nonce [nonceBytes]byte

// signIn is a checked client.Login.
type signIn struct {
	login    string
	password secret.Text
	device   id.Device // empty for a new one
	name     string
	os       string
	issuedAt time.Time
	nonce    nonce
}

// parseSignIn reads the plaintext of a sealed sign-in. It is stricter than
// encoding/json: names are matched exactly, nothing may be missing, twice or
// unknown, so that no two readers can see different things in it.
func parseSignIn(data []byte) (signIn, error) {
	var in signIn
	if !utf8.Valid(data) {
		return in, fault.InvalidField("plaintext", "is not valid UTF-8")
	}
	top, err := object(data, "plaintext", "login", "password", "device", "issued_at", "nonce")
	if err != nil {
		return in, err
	}
	dev, err := object(top["device"], "plaintext.device", "id?", "name", "os")
	if err != nil {
		return in, err
	}
	r := textReader{}
	in.login = r.text(top, "plaintext.", "login", 1, maxLogin)
	in.password = secret.New(r.text(top, "plaintext.", "password", 1, maxPassword))
	in.device = id.Device(r.text(dev, "plaintext.device.", "id", 0, maxDeviceID))
	in.name = r.printable(dev, "plaintext.device.", "name", maxDeviceName)
	in.os = r.printable(dev, "plaintext.device.", "os", maxDeviceOS)
	issued := r.text(top, "plaintext.", "issued_at", 1, 64)
	encoded := r.text(top, "plaintext.", "nonce", 1, 64)
	if r.err != nil {
		return in, r.err
	}
	if in.issuedAt, err = time.Parse(time.RFC3339, issued); err != nil {
		return in, fault.InvalidField("plaintext.issued_at", "is not a time like 2026-01-31T23:59:59Z (RFC 3339)")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != nonceBytes {
		return in, fault.InvalidField("plaintext.nonce", "is not %d bytes in base64 (standard, padded)", nonceBytes)
	}
	in.nonce = nonce(raw)
	return in, nil
}

// object reads a JSON object with exactly these names; those that end in "?"
// may be missing.
func object(data []byte, path string, names ...string) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fault.InvalidField(path, "is not a JSON object")
	}
	out := make(map[string]json.RawMessage, len(names))
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, fault.InvalidField(path, "is not valid JSON")
		}
		if !slices.Contains(names, name) && !slices.Contains(names, name+"?") {
			return nil, fault.InvalidField(path, "has an unknown field")
		}
		if _, twice := out[name]; twice {
			return nil, fault.InvalidField(path+"."+name, "is there twice")
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, fault.InvalidField(path+"."+name, "is not valid JSON")
		}
		out[name] = v
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return nil, fault.InvalidField(path, "is not valid JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.InvalidField(path, "is followed by something else")
	}
	for _, name := range names {
		if _, ok := out[name]; !ok && !strings.HasSuffix(name, "?") {
			return nil, fault.InvalidField(path+"."+name, "is missing")
		}
	}
	return out, nil
}

// textReader reads strings until the first problem.
type textReader struct{ err error }

func (r *textReader) text(o map[string]json.RawMessage, prefix, name string, low, high int) string {
	raw, ok := o[name]
	if !ok || r.err != nil {
		return ""
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		r.err = fault.InvalidField(prefix+name, "is not a string")
		return ""
	}
	if n := utf8.RuneCountInString(*s); n < low || n > high {
		r.err = fault.InvalidField(prefix+name, "has %d characters; %d to %d are allowed", n, low, high)
		return ""
	}
	return *s
}

func (r *textReader) printable(o map[string]json.RawMessage, prefix, name string, high int) string {
	s := r.text(o, prefix, name, 1, high)
	if r.err == nil && (strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })) {
		r.err = fault.InvalidField(prefix+name, "has characters that cannot be seen, or a space at its begin or end")
	}
	return s
}
