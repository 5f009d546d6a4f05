package logline

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

// Parse reads one line, with or without its end. It never fails: what is no
// JSON object is a message. NUL and bytes that are no UTF-8 become U+FFFD. A
// known key with null or an empty string says nothing and leaves no trace.
//
// The record's strings are parts of one copy of the line, so keeping one keeps
// the line.
func Parse(line []byte, d Defaults) Record {
	file := text(d.File) // a path is any bytes
	r := Record{File: file, Cut: d.Cut}
	if len(line) > MaxLine {
		line, r.Cut = line[:MaxLine], true
	}
	s := clean(line)
	p := parser{s: s, r: &r, now: d.Now}
	if !p.line() {
		// The keys before the cut are still true; the rest stays searchable in the message.
		if r.Cut && p.began {
			r.Fields = nil
		} else {
			r = Record{File: file, Cut: r.Cut}
			r.Time, r.Level = plain(s, d.Now)
		}
		r.Message = s
	}
	if r.Time.IsZero() {
		r.Time = d.Now.UTC().Truncate(time.Microsecond)
	}
	if r.Service == "" {
		r.Service = text(d.Service)
	}
	return r
}

// clean makes text of the bytes: no line end, no byte order mark, no NUL,
// nothing that is not UTF-8.
func clean(line []byte) string {
	line = bytes.TrimPrefix(line, []byte("\ufeff"))
	return text(string(bytes.TrimRight(line, "\r\n")))
}

func text(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\ufffd")
	}
	return s
}

// parser walks one JSON object and fills the record on the way. Its idea of
// what is valid is that of encoding/json, which the fuzz test holds it to.
type parser struct {
	s     string
	i     int
	depth int // open objects and arrays
	r     *Record
	now   time.Time
	began bool   // the line is an object as far as it goes
	more  []byte // fields beyond MaxFields, as the inside of an object
}

// line reports whether all of s is one object.
func (p *parser) line() bool {
	p.space()
	if p.peek() != '{' {
		return false
	}
	p.began = true
	if !p.object("", 0) {
		return false
	}
	p.space()
	if p.i != len(p.s) {
		return false
	}
	if p.more != nil {
		p.r.Fields = append(p.r.Fields, Field{"more", "{" + string(p.more) + "}", JSON})
	}
	return true
}

// object reads {...}; prefix is the path of its keys, level how deep it is.
func (p *parser) object(prefix string, level int) bool {
	if !p.open() {
		return false
	}
	p.space()
	if p.peek() == '}' {
		return p.close()
	}
	for {
		if p.peek() != '"' {
			return false
		}
		key, ok := p.str()
		if !ok {
			return false
		}
		p.space()
		if p.peek() != ':' {
			return false
		}
		p.i++
		p.space()
		if level > 0 {
			key = prefix + "." + key
		}
		if !p.member(key, level) {
			return false
		}
		p.space()
		switch p.peek() {
		case ',':
			p.i++
			p.space()
		case '}':
			return p.close()
		default:
			return false
		}
	}
}

// member reads one value and puts it where its key belongs.
func (p *parser) member(key string, level int) bool {
	start := p.i
	f := Field{Key: key}
	ok := false
	switch c := p.peek(); c {
	case '"':
		f.Value, ok = p.str()
	case '{':
		if level < MaxDepth && !p.emptyObject() {
			return p.object(key, level+1)
		}
		f.Kind, ok = JSON, p.skip()
	case '[':
		f.Kind, ok = JSON, p.skip()
	case 't', 'f':
		f.Kind, ok = Bool, p.skip()
	case 'n':
		f.Kind, ok = Null, p.skip()
	default:
		f.Kind, ok = Number, p.skip()
	}
	if !ok {
		return false
	}
	if f.Kind != String {
		f.Value = p.s[start:p.i]
	}
	if level == 0 {
		if name := known(key); name != "" {
			p.known(name, f)
			return true
		}
	}
	p.add(f)
	return true
}

// known puts a value into its slot. The first that says something wins.
func (p *parser) known(name string, f Field) {
	if f.Kind == Null || f.Kind == String && f.Value == "" {
		return
	}
	f.Key = name
	r := p.r
	switch name {
	case "time":
		if r.Time.IsZero() && f.Kind <= Number {
			if t, ok := ParseTime(f.Value); ok && Plausible(t, p.now) {
				r.Time = t
				return
			}
		}
		f.Key = "ts"
	case "level":
		if r.Level == Unknown && f.Kind <= Number {
			if l, ok := ParseLevel(f.Value); ok {
				r.Level = l
				return
			}
		}
	default:
		if slot := r.slot(name); *slot == "" && f.Kind != JSON {
			*slot = f.Value
			return
		}
	}
	p.add(f)
}

func (p *parser) add(f Field) {
	if len(p.r.Fields) < MaxFields {
		if p.r.Fields == nil {
			p.r.Fields = make([]Field, 0, 8)
		}
		p.r.Fields = append(p.r.Fields, f)
		return
	}
	if p.more != nil {
		p.more = append(p.more, ',')
	}
	p.more = appendString(p.more, f.Key)
	p.more = append(p.more, ':')
	p.more = appendValue(p.more, f)
}
