//go:build linux

package supervise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"vpnd/pkg/fault"
)

// maxSpecBytes bounds services.json; a thousand services fit.
const maxSpecBytes = 1 << 20

// Parse reads services.json: {"services": {"name": {...}}}. It is strict: an
// unknown or repeated key, a wrong type or a value out of range is a problem,
// and every problem is reported at once as a fault.Invalid with one Field each
// (path "services.gateway.heartbeat.interval").
func Parse(data []byte) (map[string]Spec, error) { return ParseOver(nil, data) }

// ParseOver is Parse on top of a built-in default: an entry of data changes
// only the fields it names, an entry that base does not have is added. To
// leave out a service of base, set "enabled": false. base is not changed.
func ParseOver(base map[string]Spec, data []byte) (map[string]Spec, error) {
	out := make(map[string]Spec, len(base))
	for name, s := range base {
		out[name] = s.clone()
	}
	var p problems
	switch {
	case len(data) > maxSpecBytes:
		p.add("services", "longer than %d bytes", maxSpecBytes)
	case !utf8.Valid(data):
		p.add("services", "not valid UTF-8")
	default:
		p.document(data, out)
	}
	reported := p.fields
	for _, f := range Validate(out) {
		// A field that could not be read is empty; that it is also missing
		// would be noise.
		if !slices.ContainsFunc(reported, func(r fault.Field) bool {
			return f.Path == r.Path || strings.HasPrefix(f.Path, r.Path+".") || strings.HasPrefix(f.Path, r.Path+"[") ||
				strings.HasPrefix(r.Path, f.Path+"[") || strings.HasPrefix(r.Path, f.Path+".")
		}) {
			p.fields = append(p.fields, f)
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// problems collects what is wrong with the input.
type problems struct{ fields []fault.Field }

func (p *problems) add(path, format string, args ...any) {
	p.fields = append(p.fields, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

// err is nil without problems.
func (p *problems) err() error {
	if len(p.fields) == 0 {
		return nil
	}
	lines := make([]string, len(p.fields))
	for i, f := range p.fields {
		lines[i] = f.Path + ": " + f.Message
	}
	return fault.New(fault.Invalid, "%s", strings.Join(lines, "; ")).WithFields(p.fields...)
}

func (p *problems) document(data []byte, out map[string]Spec) {
	var probe any
	if err := json.Unmarshal(data, &probe); err != nil {
		p.add("services", "not JSON: %s", where(data, err))
		return
	}
	for _, m := range p.object("", data) {
		if m.key != "services" {
			p.add(m.key, "unknown key")
			continue
		}
		for _, entry := range p.object("services", m.value) {
			s := out[entry.key]
			p.value("services."+entry.key, entry.value, reflect.ValueOf(&s).Elem())
			out[entry.key] = s
		}
	}
}

// where turns the offset of a syntax error into a line number.
func where(data []byte, err error) string {
	if syn, ok := err.(*json.SyntaxError); ok && syn.Offset <= int64(len(data)) {
		return fmt.Sprintf("line %d: %v", 1+bytes.Count(data[:syn.Offset], []byte("\n")), err)
	}
	return err.Error()
}

type member struct {
	key   string
	value json.RawMessage
}

// object splits a JSON object into its members, in order.
func (p *problems) object(path string, raw json.RawMessage) []member {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		p.add(orTop(path), "must be an object")
		return nil
	}
	var members []member
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		key, isString := tok.(string)
		var value json.RawMessage
		if err != nil || !isString || dec.Decode(&value) != nil {
			p.add(orTop(path), "not JSON")
			return members
		}
		if seen[key] {
			p.add(join(path, key), "given twice")
			continue
		}
		seen[key] = true
		members = append(members, member{key, value})
	}
	return members
}

func orTop(path string) string {
	if path == "" {
		return "the document"
	}
	return path
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value reads raw into v by v's type; the types are those of Spec.
func (p *problems) value(path string, raw json.RawMessage, v reflect.Value) {
	if d, ok := v.Addr().Interface().(*Duration); ok {
		var text string
		if !p.scalar(path, raw, &text, `a duration such as "2s"`) {
			return
		}
		if err := d.UnmarshalText([]byte(text)); err != nil {
			p.add(path, `must be a duration such as "2s", not %q`, text)
		} else if *d == 0 {
			p.add(path, "must be more than 0")
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		p.fieldsOf(path, raw, v)
	case reflect.String:
		p.scalar(path, raw, v.Addr().Interface(), "a string")
	case reflect.Bool:
		p.scalar(path, raw, v.Addr().Interface(), "true or false")
	case reflect.Int:
		if p.scalar(path, raw, v.Addr().Interface(), "a whole number") && v.Int() == 0 {
			p.add(path, "must be more than 0")
		}
	case reflect.Pointer:
		target := reflect.New(v.Type().Elem())
		p.value(path, raw, target.Elem())
		v.Set(target)
	case reflect.Slice:
		p.list(path, raw, v)
	case reflect.Map:
		values := map[string]string{}
		for _, m := range p.object(path, raw) {
			var s string
			if p.scalar(join(path, m.key), m.value, &s, "a string") {
				values[m.key] = s
			}
		}
		v.Set(reflect.ValueOf(values))
	}
}

// scalar reads a string, number or boolean. null is none of them, though
// encoding/json lets it pass.
func (p *problems) scalar(path string, raw json.RawMessage, into any, want string) bool {
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) || json.Unmarshal(raw, into) != nil {
		p.add(path, "must be %s", want)
		return false
	}
	return true
}

func (p *problems) list(path string, raw json.RawMessage, v reflect.Value) {
	var items []json.RawMessage
	if !p.scalar(path, raw, &items, "a list of strings") {
		return
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		p.value(fmt.Sprintf("%s[%d]", path, i), item, list.Index(i))
	}
	v.Set(list)
}

func (p *problems) fieldsOf(path string, raw json.RawMessage, v reflect.Value) {
	byKey := map[string]reflect.Value{}
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		byKey[key] = v.Field(i)
	}
	for _, m := range p.object(path, raw) {
		field, known := byKey[m.key]
		if !known {
			p.add(join(path, m.key), "unknown key; known are %s", strings.Join(slices.Sorted(maps.Keys(byKey)), ", "))
			continue
		}
		p.value(join(path, m.key), m.value, field)
	}
}

// The widest durations that make sense; what is longer is a typing error.
const (
	minDuration = time.Millisecond
	maxDuration = time.Hour
)
