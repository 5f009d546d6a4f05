package logquery

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vpnd/pkg/logline"
)

// Parse reads a query; times without a zone are UTC. The error is an *Error.
func Parse(text string, now time.Time) (Query, error) { return ParseIn(text, now, time.UTC) }

// ParseIn is Parse for somebody whose clock shows the time of loc.
func ParseIn(text string, now time.Time, loc *time.Location) (Query, error) {
	p := parser{s: text, now: now, loc: loc}
	if err := p.query(); err != nil {
		return Query{}, err
	}
	return p.q, nil
}

type parser struct {
	s      string
	i      int // bytes
	now    time.Time
	loc    *time.Location
	q      Query
	terms  int // Terms and time bounds
	values int
	timeAt int // where the last time stands
}

// fail builds the error for the byte offset at.
func (p *parser) fail(at int, hint, format string, args ...any) *Error {
	return &Error{1 + utf8.RuneCountInString(p.s[:at]), fmt.Sprintf(format, args...), hint}
}

func (p *parser) query() *Error {
	if len(p.s) > MaxText {
		return &Error{1, fmt.Sprintf("%d bytes are more than the %d a query may have", len(p.s), MaxText), "ask for less at once"}
	}
	for i, r := range p.s {
		if r == utf8.RuneError && !strings.HasPrefix(p.s[i:], "\ufffd") {
			return p.fail(i, "write the query in UTF-8", "a byte that is not UTF-8")
		}
		if r == 0 {
			return p.fail(i, "leave it out: no record has one", "a NUL character")
		}
	}
	for {
		p.spaces()
		if p.i == len(p.s) {
			return p.emptyRange()
		}
		if p.terms == MaxTerms {
			return p.fail(p.i, "put alternatives into one list: field=a,b,c", "more than %d terms", MaxTerms)
		}
		p.terms++
		if err := p.term(); err != nil {
			return err
		}
	}
}

func (p *parser) spaces() {
	for p.i < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[p.i:])
		if !unicode.IsSpace(r) {
			return
		}
		p.i += n
	}
}

// term reads one condition. What stands before an operator is a field.
func (p *parser) term() *Error {
	t := Term{Column: 1 + utf8.RuneCountInString(p.s[:p.i])}
	start := p.i
	if c := p.s[p.i]; c == '!' || c == '-' {
		t.Not = true
		p.i++
		if r, _ := utf8.DecodeRuneInString(p.s[p.i:]); p.i == len(p.s) || unicode.IsSpace(r) {
			return p.fail(start, "write it right before a term: !user=alice", "%q alone negates nothing", string(c))
		}
		if c := p.s[p.i]; c == '!' || c == '-' {
			return p.fail(p.i, `to search for the sign itself, quote it: "--force"`, "negated twice")
		}
	}
	at := p.i
	v, err := p.value(true)
	if err != nil {
		return err
	}
	op, not, n := operator(p.s[p.i:])
	if n == 0 {
		return p.text(t, v, at)
	}
	if v.prefix {
		return p.fail(at, "name the field in full", "a field name cannot end in *")
	}
	if err := fieldName(p, v, at); err != nil {
		return err
	}
	opAt := p.i
	p.i += n
	t.Op, t.Not = op, t.Not != not
	if word := boundWord(v.text); word != "" && !v.quoted {
		return p.bound(t, word, op == Equal && !not, opAt)
	}
	t.Field = logline.Canonical(v.text)
	if t.Field == "time" {
		return p.timeTerm(t, opAt)
	}
	return p.field(t, opAt)
}

// boundWord is since or until when that is what s says, in any case as with the
// known names of fields, and else empty.
func boundWord(s string) string {
	if s = strings.ToLower(s); s == "since" || s == "until" {
		return s
	}
	return ""
}

func fieldName(p *parser, v value, at int) *Error {
	if v.text == "" {
		return p.fail(at, "write field=value, without spaces around the operator", "an operator without a field before it")
	}
	if v.quoted {
		return nil
	}
	for _, r := range v.text {
		if !nameRune(r) {
			return p.fail(at, `put it in quotes: "odd name"=x for a field, "a=b" for a text`, "%q is no field name", clip(v.text))
		}
	}
	return nil
}

// nameRune: the runes of a field name that needs no quotes.
func nameRune(r rune) bool {
	return r == '_' || r == '.' || r == '-' || r == '@' || r == '$' || r == '~' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

func operator(s string) (op Op, not bool, n int) {
	for _, o := range operators {
		if strings.HasPrefix(s, o.sign) {
			return o.op, o.not, len(o.sign)
		}
	}
	return Text, false, 0
}

// operators, the longer before those they begin with.
var operators = [...]struct {
	sign string
	op   Op
	not  bool
}{{"!=", Equal, true}, {"<=", LessEqual, false}, {">=", GreaterEqual, false}, {"=", Equal, false}, {"<", Less, false}, {">", Greater, false}}

func (p *parser) text(t Term, v value, at int) *Error {
	if !v.quoted && !v.prefix && (v.text == "OR" || v.text == "AND" || v.text == "NOT") {
		return p.fail(at, `all terms must hold, field=a,b is either, !term is not; "`+v.text+`" in quotes is the word`, "%s is not an operator here", v.text)
	}
	if len(Tokens(v.text)) == 0 {
		return p.fail(at, "search for words, numbers, or the beginning of one: sign*", "no letter and no digit to search for")
	}
	if err := p.count(at); err != nil {
		return err
	}
	t.Values, t.Prefix = []string{v.text}, []bool{v.prefix}
	p.q.Terms = append(p.q.Terms, t)
	return nil
}

func (p *parser) count(at int) *Error {
	if p.values++; p.values > MaxValues {
		return p.fail(at, "ask in several queries", "more than %d values", MaxValues)
	}
	return nil
}

// field reads the values of a field's term.
func (p *parser) field(t Term, opAt int) *Error {
	for {
		at := p.i
		v, err := p.value(false)
		if err != nil {
			return err
		}
		if v.text == "" && !v.quoted && !v.prefix {
			return p.fail(at, `write "" for an empty value, * for any`, "a value is missing")
		}
		if err := p.count(at); err != nil {
			return err
		}
		if t.Op != Equal && (v.prefix || len(t.Values) > 0) {
			return p.fail(at, "only = and != take several values and *", "one plain value is wanted after %s", p.s[opAt:opAt+signLen(t.Op)])
		}
		switch {
		case t.Field == "level":
			if v, err = p.level(v, &t, at); err != nil {
				return err
			}
		case t.Op != Equal:
			n, ok := ParseNumber(v.text)
			if !ok {
				return p.fail(at, "compare with a number, such as dur_ms>200; quote the term to search for it as text", "%q is not a number", clip(v.text))
			}
			t.Number = append(t.Number, n)
		}
		t.Values, t.Prefix = append(t.Values, v.text), append(t.Prefix, v.prefix)
		if p.i == len(p.s) || p.s[p.i] != ',' {
			p.q.Terms = append(p.q.Terms, t)
			return nil
		}
		p.i++
	}
}

func signLen(op Op) int {
	if op == LessEqual || op == GreaterEqual {
		return 2
	}
	return 1
}

func (p *parser) level(v value, t *Term, at int) (value, *Error) {
	if v.prefix && v.text == "" {
		return v, nil
	}
	l, ok := logline.ParseLevel(v.text)
	if !ok || v.prefix {
		return v, p.fail(at, "levels are "+strings.Join(logline.Levels[:], ", "), "%q is not a level", clip(v.text))
	}
	if t.Op != Equal {
		t.Number = append(t.Number, float64(l))
	}
	v.text = l.String()
	return v, nil
}

// ParseNumber reads a number as < and > see it: finite, decimal, nothing
// around it.
func ParseNumber(s string) (float64, bool) {
	if s == "" || len(s) > 64 {
		return 0, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && c != '+' && c != '-' && c != '.' && c|0x20 != 'e' {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// clip keeps an error message short whatever was typed.
func clip(s string) string {
	n := 0
	for i := range s {
		if n++; n > 40 {
			return s[:i] + "…"
		}
	}
	return s
}
