package rpc

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// encode builds the HTTP request that a server with the same declaration
// decodes: `path`, `query` and `header` fields, and the field Body as JSON.
func encode(info Info, base string, req any) (*http.Request, error) {
	path := info.Path
	query := url.Values{}
	header := http.Header{}
	var body []byte
	v := reflect.Indirect(reflect.ValueOf(req))
	for _, f := range fields(v.Type()) {
		fv, err := v.FieldByIndexErr(f.Index)
		if err != nil {
			continue // inside a nil embedded struct
		}
		switch {
		case f.Name == "Body":
			if body, err = json.Marshal(fv.Interface()); err != nil {
				return nil, fmt.Errorf("encode body of %s: %w", info.ID, err)
			}
		case f.Tag.Get("path") != "":
			path = strings.ReplaceAll(path, "{"+f.Tag.Get("path")+"}", url.PathEscape(text(fv)))
		case f.Tag.Get("query") != "":
			name, _, _ := strings.Cut(f.Tag.Get("query"), ",")
			if s := text(fv); s != "" && !fv.IsZero() {
				query.Set(name, s)
			}
		case f.Tag.Get("header") != "":
			if s := text(fv); s != "" {
				header.Set(f.Tag.Get("header"), s)
			}
		}
	}
	u := base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	hr, err := http.NewRequest(info.Method, u, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", info.ID, err)
	}
	hr.Header = header
	hr.Header.Set("Accept", "application/json")
	if body != nil {
		hr.Header.Set("Content-Type", "application/json")
	}
	return hr, nil
}

func fields(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && !f.Anonymous {
			out = append(out, f)
		}
	}
	return out
}

// text writes a parameter the way huma reads it: lists comma-separated.
func text(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		if err != nil {
			return ""
		}
		return string(b)
	}
	if v.Kind() == reflect.Slice {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = text(v.Index(i))
		}
		return strings.Join(parts, ",")
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		return text(v.Elem())
	}
	return fmt.Sprint(v.Interface())
}
