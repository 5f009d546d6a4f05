package logline

import (
	"strconv"
	"unicode/utf8"
)

// JSON is the record as one line of JSON, without the newline: time, level,
// service, event, message, user, device, session, request_id, the fields in
// their order, file, cut; what the line does not say is left out. No key comes
// twice, since readers disagree on which of two counts: the second user is
// "user~2". Control characters are escaped, so that printing a record is
// harmless.
func (r *Record) JSON() []byte { return r.AppendJSON(make([]byte, 0, 256)) }

// AppendJSON is JSON into a buffer of the caller's.
func (r *Record) AppendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.UTC().AppendFormat(b, TimeLayout)
	b = append(b, '"')
	if r.Level != Unknown {
		b = appendPair(b, "level", r.Level.String())
	}
	for _, name := range slots[:len(slots)-1] {
		if v := *r.slot(name); v != "" {
			b = appendPair(b, name, v)
		}
	}
	unique := r.uniqueKeys()
	for i, f := range r.Fields {
		if unique != nil {
			f.Key = unique[i]
		}
		b = append(b, ',')
		b = appendString(b, f.Key)
		b = append(b, ':')
		b = appendValue(b, f)
	}
	if r.File != "" {
		b = appendPair(b, "file", r.File)
	}
	if r.Cut {
		b = append(b, `,"cut":true`...)
	}
	return append(b, '}')
}

// uniqueKeys gives each field a key that no other part of the JSON has; nil
// when they have already.
func (r *Record) uniqueKeys() []string {
	clash := false
	if len(r.Fields) <= 16 {
		for i := range r.Fields {
			clash = clash || r.taken(r.Fields[i].Key)
			for j := range i {
				clash = clash || r.Fields[i].Key == r.Fields[j].Key
			}
		}
		if !clash {
			return nil
		}
	}
	// Keys that need no change are settled first: a made-up one must not take theirs.
	used := make(map[string]bool, len(r.Fields))
	keys := make([]string, len(r.Fields))
	var rest []int
	for i := range r.Fields {
		k := r.Fields[i].Key
		if used[k] || r.taken(k) {
			rest = append(rest, i)
			continue
		}
		used[k], keys[i] = true, k
	}
	last := make(map[string]int, len(rest))
	for _, i := range rest {
		k := r.Fields[i].Key
		n := max(last[k], 1)
		for {
			n++
			if c := k + "~" + strconv.Itoa(n); !used[c] {
				used[c], keys[i], last[k] = true, c, n
				break
			}
		}
	}
	return keys
}

// taken reports whether the record itself writes the key.
func (r *Record) taken(key string) bool {
	switch key {
	case "time":
		return true
	case "level":
		return r.Level != Unknown
	case "cut":
		return r.Cut
	}
	p := r.slot(key)
	return p != nil && *p != ""
}

func appendPair(b []byte, key, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return appendString(b, value)
}

func appendValue(b []byte, f Field) []byte {
	if f.Kind == String {
		return appendString(b, f.Value)
	}
	return appendText(b, f.Value, false)
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	b = appendText(b, s, true)
	return append(b, '"')
}

// appendText escapes for JSON what must be and what a terminal would obey; in
// text that is JSON already (quote false) control characters stand within
// strings only, but for the white space.
func appendText(b []byte, s string, quote bool) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		size, r := 1, rune(c)
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), "\ufffd"...)
		case quote && (c == '"' || c == '\\'):
			b = append(append(b, s[start:i]...), '\\', c)
		case !quote && c < ' ':
			b = append(append(b, s[start:i]...), ' ')
		case c == '\n':
			b = append(append(b, s[start:i]...), '\\', 'n')
		case c == '\t':
			b = append(append(b, s[start:i]...), '\\', 't')
		case r < ' ' || r >= 0x7f && r <= 0x9f || r >= '\u2028' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069':
			b = append(append(b, s[start:i]...), '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			i += size
			continue
		}
		i += size
		start = i
	}
	return append(b, s[start:]...)
}
