package logquery

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// value is one name, word, phrase or value as it was written.
type value struct {
	text   string
	quoted bool
	prefix bool // an open * follows
}

// value reads up to a space, to the comma of a list, or, where a name may
// stand, to an operator. It may be empty.
func (p *parser) value(name bool) (value, *Error) {
	if p.i < len(p.s) && p.s[p.i] == '"' {
		return p.quotedValue(name)
	}
	var b strings.Builder
	var v value
	for p.i < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[p.i:])
		_, _, op := operator(p.s[p.i:])
		if unicode.IsSpace(r) || name && op > 0 || !name && r == ',' {
			break
		}
		if v.prefix {
			return v, p.fail(p.i-1, `write \* for the sign itself; there is no search for the middle of a word`, "* can only be the end")
		}
		switch r {
		case '"':
			return v, p.fail(p.i, `begin with it, or write \"`, "a quote in the middle")
		case '*':
			v.prefix = true
		case '\\':
			c, err := p.escape()
			if err != nil {
				return v, err
			}
			b.WriteRune(c)
			continue
		default:
			b.WriteRune(r)
		}
		p.i += n
	}
	v.text = b.String()
	return v, nil
}

func (p *parser) quotedValue(name bool) (value, *Error) {
	open := p.i
	p.i++
	var b strings.Builder
	for {
		if p.i == len(p.s) {
			return value{}, p.fail(open, `end it with "`, "a quote that is never closed")
		}
		r, n := utf8.DecodeRuneInString(p.s[p.i:])
		if r == '"' {
			p.i++
			break
		}
		if r == '\\' {
			c, err := p.escape()
			if err != nil {
				return value{}, err
			}
			b.WriteRune(c)
			continue
		}
		b.WriteRune(r)
		p.i += n
	}
	v := value{text: b.String(), quoted: true}
	if strings.HasPrefix(p.s[p.i:], "*") {
		v.prefix = true
		p.i++
	}
	if p.i == len(p.s) {
		return v, nil
	}
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	if _, _, op := operator(p.s[p.i:]); unicode.IsSpace(r) || name && op > 0 || !name && r == ',' {
		return v, nil
	}
	return v, p.fail(p.i, "put a space between, or all of it inside the quotes", "text right after a quote")
}

// escape reads a backslash and what it stands for.
func (p *parser) escape() (rune, *Error) {
	at := p.i
	p.i++
	if p.i == len(p.s) {
		return 0, p.fail(at, `write \\ for the sign itself`, `a \ at the end`)
	}
	r, n := utf8.DecodeRuneInString(p.s[p.i:])
	p.i += n
	switch {
	case r == 'n':
		return '\n', nil
	case r == 'r':
		return '\r', nil
	case r == 't':
		return '\t', nil
	case unicode.IsLetter(r) || unicode.IsDigit(r):
		return 0, p.fail(at, `write \\ for the sign itself; \n, \r and \t are the only letters`, `\%c means nothing`, r)
	}
	return r, nil
}

// String is the canonical form: parsed again it gives the same query, columns
// aside, at any time and place.
func (q Query) String() string {
	var b strings.Builder
	for _, t := range q.Terms {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if t.Not {
			b.WriteByte('!')
		}
		if t.Op != Text {
			b.WriteString(name(t.Field))
			for _, o := range operators {
				if o.op == t.Op && !o.not {
					b.WriteString(o.sign)
				}
			}
		}
		for i, v := range t.Values {
			if i > 0 {
				b.WriteByte(',')
			}
			if star := t.Prefix[i]; t.Op == Text || v != "" || !star {
				b.WriteString(word(v, t.Op == Text))
			}
			if t.Prefix[i] {
				b.WriteByte('*')
			}
		}
	}
	if !q.Since.IsZero() {
		b.WriteString(" since=" + q.Since.Format(timeLayout))
	}
	if !q.Until.IsZero() {
		b.WriteString(" until=" + q.Until.Format(timeLayout))
	}
	return strings.TrimPrefix(b.String(), " ")
}

func name(s string) string {
	if s == "" || boundWord(s) != "" || s[0] == '-' || strings.ContainsFunc(s, func(r rune) bool { return !nameRune(r) }) {
		return Quote(s)
	}
	return s
}

// word quotes a value unless it cannot be taken for anything else.
func word(s string, text bool) string {
	plain := func(r rune) bool {
		return r == '_' || !text && (r == '.' || r == '-' || r == '/' || r == ':') || unicode.IsLetter(r) || unicode.IsDigit(r)
	}
	if s == "" || text && (s == "OR" || s == "AND" || s == "NOT") || strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return Quote(s)
	}
	return s
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// Quote writes a value so that it stands for itself in a query, whatever it
// contains: for programs that put queries together.
func Quote(s string) string { return `"` + quoter.Replace(s) + `"` }
