package rpc

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/fault"
)

// encode builds the HTTP request that a server with the same declaration
// decodes: `path`, `query` and `header` fields, and the field Body as JSON.
func (c *Conn) encode(info Info, req any) (*http.Request, error) {
	path := info.Path
	query := url.Values{}
	header := http.Header{"Accept": {"application/json"}}
	var body []byte
	v := reflect.Indirect(reflect.ValueOf(req))
	for _, f := range c.fields(v.Type()) {
		fv, err := v.FieldByIndexErr(f.Index)
		if err != nil {
			continue // inside a nil embedded struct
		}
		if f.Name == "Body" {
			if fv.Kind() == reflect.Pointer && fv.IsNil() {
				continue
			}
			if body, err = json.Marshal(fv.Interface()); err != nil {
				return nil, fmt.Errorf("encode body of %s: %w", info.ID, err)
			}
			if limit := info.bodyLimit(); int64(len(body)) > limit {
				return nil, tooLarge(limit)
			}
			header.Set("Content-Type", "application/json")
			continue
		}
		where, name := parameter(f)
		if where == "" || where != "path" && fv.IsZero() {
			continue
		}
		s, err := text(fv, where)
		switch {
		case err != nil:
			return nil, fault.InvalidField(where+"."+name, "%v", err)
		case where == "path" && s == "":
			return nil, fault.InvalidField("path."+name, "is required")
		case where == "path":
			path = strings.ReplaceAll(path, "{"+name+"}", escapeSegment(s))
		case where == "query":
			query.Set(name, s)
		case where == "header":
			header.Set(name, s)
		}
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	hr, err := http.NewRequest(info.Method, u, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", info.ID, err)
	}
	hr.Header = header
	return hr, nil
}

// parameter tells which part of the request a field travels in.
func parameter(f reflect.StructField) (where, name string) {
	for _, where := range []string{"path", "query", "header"} {
		if tag := f.Tag.Get(where); tag != "" {
			name, _, _ := strings.Cut(tag, ",")
			return where, name
		}
	}
	return "", ""
}

// escapeSegment writes one segment of a path. "." and ".." would be taken for
// steps in the path, so their first dot is written as its code.
func escapeSegment(s string) string {
	if s == "." || s == ".." {
		return "%2E" + s[1:]
	}
	return url.PathEscape(s)
}

// fields lists the exported fields, those of embedded structs included.
func fields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool {
		return !f.IsExported() || f.Anonymous
	})
}

// fields remembers the fields of request types: finding them costs as much as
// the rest of encode.
func (c *Conn) fields(t reflect.Type) []reflect.StructField {
	if known, ok := c.shapes.Load(t); ok {
		return known.([]reflect.StructField)
	}
	fs := fields(t)
	c.shapes.Store(t, fs)
	return fs
}

// text writes a parameter the way huma reads it: lists comma-separated.
func text(v reflect.Value, where string) (string, error) {
	if t, ok := v.Interface().(time.Time); ok && where == "header" {
		return t.UTC().Format(http.TimeFormat), nil
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		return string(b), err
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(v.Interface()), nil
	}
	parts := make([]string, v.Len())
	for i := range parts {
		s, err := text(v.Index(i), where)
		if err != nil {
			return "", err
		}
		if s == "" || strings.Contains(s, ",") {
			return "", errors.New("a list takes neither empty texts nor commas")
		}
		parts[i] = s
	}
	return strings.Join(parts, ","), nil
}
