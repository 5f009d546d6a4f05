package rpc

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"vpnd/pkg/fault"
)

// input is what an operation takes, as far as it is checked before huma
// checks the rest by type.
type input struct {
	path, header []string // names of parameters
	body         bool
	required     bool // the body
	limit        int64
}

func inputOf(t reflect.Type, info Info) input {
	in := input{limit: info.bodyLimit()}
	for _, f := range fields(t) {
		switch {
		case f.Name == "Body":
			in.body, in.required = true, f.Type.Kind() != reflect.Pointer
		case f.Tag.Get("path") != "":
			in.path = append(in.path, f.Tag.Get("path"))
		case f.Tag.Get("header") != "":
			in.header = append(in.header, f.Tag.Get("header"))
		}
	}
	return in
}

// read checks the texts of the request and reads the body; the request has all
// of it in memory then.
func (in input) read(w http.ResponseWriter, r *http.Request) error {
	for _, name := range in.path {
		if flaw := textFlaw(r.PathValue(name)); flaw != "" {
			return fault.InvalidField("path."+name, "%s", flaw)
		}
	}
	for _, name := range in.header {
		if flaw := textFlaw(r.Header.Get(name)); flaw != "" {
			return fault.InvalidField("header."+name, "%s", flaw)
		}
	}
	if r.URL.RawQuery != "" {
		if err := readQuery(r); err != nil {
			return err
		}
	}
	if in.body || r.ContentLength != 0 {
		if err := in.readBody(w, r); err != nil {
			return err
		}
	}
	// The deadline was for the request. The connection goes on being read, to
	// learn of a caller who goes away, for as long as the answer takes.
	_ = huma.SetReadDeadline(w, time.Time{})
	return nil
}

// readQuery refuses what url.Values and huma would skip in silence, and gives
// a name without value the value true.
func readQuery(r *http.Request) error {
	parts := strings.Split(r.URL.RawQuery, "&")
	var seen []string
	for i, part := range parts {
		rawName, rawValue, hasValue := strings.Cut(part, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil || textFlaw(name) != "" || strings.Contains(name, ";") {
			return fault.InvalidField("query", "%q is not a parameter", part)
		}
		value, err := url.QueryUnescape(rawValue)
		switch flaw := textFlaw(value); {
		case part == "":
			continue
		case err != nil || strings.Contains(rawValue, ";"):
			return fault.InvalidField("query."+name, "is not encoded as a query")
		case flaw != "":
			return fault.InvalidField("query."+name, "%s", flaw)
		case slices.Contains(seen, name):
			return fault.InvalidField("query."+name, "is given twice")
		}
		seen = append(seen, name)
		if !hasValue {
			parts[i] = part + "=true"
		}
	}
	r.URL.RawQuery = strings.Join(parts, "&")
	return nil
}

func (in input) readBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > in.limit {
		return tooLarge(in.limit)
	}
	var body bytes.Buffer
	// A length is only a promise: memory is given as the bytes arrive.
	body.Grow(int(min(max(r.ContentLength, 0), 4096)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, in.limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(in.limit)
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return withStatus{fault.Wrap(err, fault.Timeout, "the request body did not arrive in time"), http.StatusRequestTimeout}
	}
	if err != nil {
		return fault.InvalidField("body", "cannot be read: %v", err)
	}
	switch {
	case body.Len() == 0 && in.required:
		return fault.InvalidField("body", "is required")
	case !in.body && len(bytes.TrimSpace(body.Bytes())) > 0 && !bytes.Equal(bytes.TrimSpace(body.Bytes()), []byte("{}")):
		return fault.InvalidField("body", "is not taken here")
	}
	r.Body = io.NopCloser(&body)
	return nil
}

func tooLarge(limit int64) error {
	return withStatus{fault.InvalidField("body", "is larger than %d bytes", limit), http.StatusRequestEntityTooLarge}
}

// textFlaw tells what is wrong with any text, or nothing.
func textFlaw(s string) string {
	switch {
	case !utf8.ValidString(s):
		return "is not valid UTF-8"
	case strings.ContainsRune(s, 0):
		return "contains a NUL character"
	}
	return ""
}
