package logquery

import (
	"strings"

	"vpnd/pkg/logline"
)

// Matcher is Match with the work that depends on the query alone done.
// It may not be called concurrently with itself.
func (q Query) Matcher() func(*logline.Record) bool {
	var texts []phrase
	var not []bool
	var fields []Term
	for _, t := range q.Terms {
		if t.Op == Text {
			texts, not = append(texts, t.phrase()), append(not, t.Not)
		} else {
			fields = append(fields, t)
		}
	}
	found := make([]bool, len(texts))
	var tokens []string
	return func(r *logline.Record) bool {
		if !q.Since.IsZero() && r.Time.Before(q.Since) || !q.Until.IsZero() && !r.Time.Before(q.Until) {
			return false
		}
		for i := range fields {
			if fields[i].holds(r) == fields[i].Not {
				return false
			}
		}
		if len(texts) == 0 {
			return true
		}
		clear(found)
		for v := range r.Texts() {
			tokens = AppendTokens(tokens[:0], v)
			for i, p := range texts {
				found[i] = found[i] || p.in(tokens)
			}
		}
		clear(tokens) // the record is not kept
		for i := range texts {
			if found[i] == not[i] {
				return false
			}
		}
		return true
	}
}

// holds is the term without its Not.
func (t *Term) holds(r *logline.Record) bool {
	if t.Field == "level" {
		return t.level(r.Level)
	}
	for name, v := range r.Pairs() {
		if name == t.Field && t.HoldsFor(v) {
			return true
		}
	}
	return false
}

func (t *Term) level(l logline.Level) bool {
	switch {
	case l == logline.Unknown:
		return false
	case t.Op != Equal:
		return t.compare(float64(l))
	}
	for i, v := range t.Values {
		if t.Prefix[i] || v == l.String() {
			return true
		}
	}
	return false
}

// HoldsFor reports what the term, without its Not, says of one value of its
// field, which is not level.
func (t *Term) HoldsFor(value string) bool {
	if t.Op != Equal {
		n, ok := ParseNumber(value)
		return ok && t.compare(n)
	}
	for i, want := range t.Values {
		if value == want || t.Prefix[i] && strings.HasPrefix(value, want) {
			return true
		}
	}
	return false
}

func (t *Term) compare(n float64) bool {
	switch want := t.Number[0]; t.Op {
	case Less:
		return n < want
	case LessEqual:
		return n <= want
	case Greater:
		return n > want
	default:
		return n >= want
	}
}
