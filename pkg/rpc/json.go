package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// flaw is what is wrong with a JSON document, and where. huma keeps nothing of
// an error but its text, so the text carries both; parseFlaw takes them apart.
type flaw struct{ path, message string }

const flawMark = "\x00" // in no text of encoding/json or huma

func (f flaw) Error() string { return flawMark + f.path + flawMark + f.message }

func parseFlaw(s string) (flaw, bool) {
	parts := strings.SplitN(s, flawMark, 3)
	if len(parts) != 3 || parts[0] != "" {
		return flaw{}, false
	}
	return flaw{parts[1], parts[2]}, true
}

// strictUnmarshal is json.Unmarshal that names the place of what is wrong, and
// refuses what encoding/json would quietly turn into something else: invalid
// UTF-8, half a surrogate pair, and a key given twice. The second of two keys
// may be null, or part of an object, and leave standing what the first said
// while only the second is checked.
//
// huma calls it twice: with an *any, to check the document, then with the
// body's own type.
func strictUnmarshal(data []byte, v any) error {
	tree, check := v.(*any)
	if !check {
		err := json.Unmarshal(data, v)
		if err != nil {
			return flaw{locate("body", data, reflect.TypeOf(v).Elem()), plain(err)}
		}
		return nil
	}
	if !utf8.Valid(data) {
		return flaw{place(data, firstInvalid(data)), "is not valid UTF-8"}
	}
	if err := json.Unmarshal(data, tree); err != nil {
		if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return flaw{place(data, int(te.Offset)-1), plain(err)}
		}
		return flaw{"body", fmt.Sprintf("is not valid JSON (%v)", err)}
	}
	keys, bad := scan(data)
	if bad >= 0 {
		return flaw{place(data, bad), "contains a NUL character or half a surrogate pair"}
	}
	if keys != countKeys(*tree) {
		return flaw{place(data, -1), "is given twice"}
	}
	return nil
}

// plain takes Go's types out of what encoding/json says.
func plain(err error) string {
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return te.Value + " does not fit here"
	}
	return "is not valid: " + strings.TrimPrefix(err.Error(), "json: ")
}

func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(data)
}

// scan counts the keys of all objects in valid JSON, a repeated one as often
// as it is there, and finds the first escape that encoding/json would replace
// or that no text should hold.
func scan(data []byte) (keys, bad int) {
	inString := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			inString = !inString
		case !inString:
			if c == ':' {
				keys++
			}
		case c == '\\':
			i++
			if data[i] != 'u' {
				continue
			}
			r := hex4(data[i+1:])
			i += 4
			switch {
			case r == 0 || r >= 0xdc00 && r < 0xe000:
				return keys, i
			case r >= 0xd800 && r < 0xdc00:
				if !bytes.HasPrefix(data[i+1:], []byte(`\u`)) {
					return keys, i
				}
				if low := hex4(data[i+3:]); low < 0xdc00 || low >= 0xe000 {
					return keys, i
				}
				i += 6
			}
		}
	}
	return keys, -1
}

func hex4(b []byte) uint64 {
	n, _ := strconv.ParseUint(string(b[:4]), 16, 32) // the JSON is valid
	return n
}

func countKeys(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		n = len(v)
		for _, e := range v {
			n += countKeys(e)
		}
	case []any:
		for _, e := range v {
			n += countKeys(e)
		}
	}
	return n
}

// place names the innermost value that holds the byte at offset, or with a
// negative offset the first key that is given twice. Where the JSON breaks
// earlier it is the nearest place reached.
func place(data []byte, offset int) string {
	type level struct {
		keys  map[string]bool // nil: an array
		key   string
		index int
		isKey bool // the next string is a key
	}
	var stack []level
	path := func() string {
		p := "body"
		for _, l := range stack {
			switch {
			case l.keys == nil:
				p += "[" + strconv.Itoa(l.index) + "]"
			case l.key != "":
				p += "." + l.key
			}
		}
		return p
	}
	ended := func() { // a value
		if n := len(stack); n > 0 {
			stack[n-1].isKey = stack[n-1].keys != nil
			stack[n-1].index++
		}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		tok, err := dec.Token()
		if err != nil {
			return path()
		}
		past := offset >= 0 && int(dec.InputOffset()) > offset
		if n := len(stack); n > 0 && stack[n-1].isKey && tok != json.Delim('}') {
			if past {
				return path()
			}
			key := fmt.Sprint(tok)
			stack[n-1].key, stack[n-1].isKey = key, false
			if offset < 0 && stack[n-1].keys[key] {
				return path()
			}
			stack[n-1].keys[key] = true
			continue
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{keys: map[string]bool{}, isKey: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			ended()
		default:
			if past {
				return path()
			}
			ended()
		}
	}
}

// locate finds the part of a document that t does not take. The document is
// valid JSON and fits t's schema, so it is a matter of values: a number too
// large, a text that is no address.
func locate(path string, data []byte, t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	fits := func(data []byte, t reflect.Type) bool { return json.Unmarshal(data, reflect.New(t).Interface()) == nil }
	switch t.Kind() {
	case reflect.Struct:
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil {
			return path
		}
		for _, f := range fields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				name = f.Name
			}
			if m, ok := members[name]; ok && !fits(m, f.Type) {
				return locate(path+"."+name, m, f.Type)
			}
		}
	case reflect.Slice, reflect.Array:
		var items []json.RawMessage
		if json.Unmarshal(data, &items) != nil {
			return path
		}
		for i, item := range items {
			if !fits(item, t.Elem()) {
				return locate(path+"["+strconv.Itoa(i)+"]", item, t.Elem())
			}
		}
	case reflect.Map:
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil {
			return path
		}
		for key, m := range members {
			if !fits(m, t.Elem()) {
				return locate(path+"."+key, m, t.Elem())
			}
		}
	}
	return path
}
