package logstore

import (
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

// plan is a query prepared for many segments. What a term means is logquery's
// alone: a plan only finds ways to ask it about fewer things than all records.
type plan struct {
	query        logquery.Query
	since, until int64 // microseconds, [since, until)
	match        func(*logline.Record) bool
	levels       int // bit l: rows of level l can match, as far as the level terms go
	words        []wordTerm
	fields       []*fieldTerm                 // all terms of fields
	columns      []*fieldTerm                 // those of them that the lexicon does not decide
	phrases      []func(*logline.Record) bool // terms that need the whole record
	simple       bool                         // a roll-up can answer the terms
	needle       string                       // the longest token that every matching record's texts have
}

// wordTerm is looked up in the lexicon.
type wordTerm struct {
	any   [][]word // one of these lists, and of it all words
	not   bool
	exact bool // else what is found are candidates, and another term decides
}

type word struct {
	token  string
	prefix bool
}

// fieldTerm is decided by one field's value.
type fieldTerm struct {
	field string
	slot  int // -1: not a slot
	term  logquery.Term
	match func(*logline.Record) bool

	absent bool // holds for records without the field
	exists bool // it asks whether the field exists
}

// maxLookups bounds what is looked up in a segment for a list of values; with
// more it is cheaper to look at the column.
const maxLookups = 16

func newPlan(q logquery.Query) *plan {
	p := &plan{query: q, since: minMicro, until: maxMicro, match: q.Matcher(), levels: 0x7f, simple: true}
	if !q.Since.IsZero() {
		p.since = q.Since.UnixMicro()
	}
	if !q.Until.IsZero() {
		p.until = q.Until.UnixMicro()
	}
	for _, t := range q.Terms {
		if t.Op == logquery.Text {
			p.text(t)
			continue
		}
		p.field(t)
	}
	p.levelWords()
	return p
}

// levelWords looks up the levels that match, or those that do not where they
// are fewer.
func (p *plan) levelWords() {
	var in, out wordTerm
	for l := logline.Unknown; l <= logline.Fatal; l++ {
		list := []word{{token: marked(levelMark, l.String())}}
		if p.levels&(1<<l) != 0 {
			in.any = append(in.any, list)
		} else {
			out.any = append(out.any, list)
		}
	}
	out.not = true
	switch {
	case len(out.any) == 0 || len(in.any) == 0:
	case len(out.any) < len(in.any):
		p.words = append(p.words, out)
	default:
		p.words = append(p.words, in)
	}
}

func (p *plan) text(t logquery.Term) {
	p.simple = false
	tokens := logquery.Tokens(t.Values[0])
	for _, token := range tokens {
		if !t.Not && len(token) > len(p.needle) {
			p.needle = token
		}
	}
	w := wordTerm{any: [][]word{words(tokens, t.Prefix[0])}, not: t.Not, exact: len(tokens) == 1}
	if !w.exact {
		p.phrases = append(p.phrases, logquery.Query{Terms: []logquery.Term{t}}.Matcher())
		if t.Not {
			return // a record with all words may match, and one without them does
		}
	}
	p.words = append(p.words, w)
}

func words(tokens []string, prefix bool) []word {
	out := make([]word, len(tokens))
	for i, t := range tokens {
		out[i] = word{t, prefix && i == len(tokens)-1}
	}
	return out
}

func (p *plan) field(t logquery.Term) {
	f := &fieldTerm{field: t.Field, slot: slotIndex(t.Field), term: t, match: logquery.Query{Terms: []logquery.Term{t}}.Matcher()}
	f.absent = f.match(&logline.Record{})
	for i, v := range t.Values {
		f.exists = f.exists || t.Op == logquery.Equal && t.Prefix[i] && v == ""
	}
	p.fields = append(p.fields, f)
	switch {
	case t.Field == "level":
		for l := logline.Unknown; l <= logline.Fatal; l++ {
			if !f.match(&logline.Record{Level: l}) {
				p.levels &^= 1 << l
			}
		}
		return // see levelWords
	case f.slot != slotService:
		p.simple = false
	}
	w := wordTerm{not: t.Not, exact: t.Op == logquery.Equal && (f.slot == slotService || f.slot == slotFile)}
	for _, v := range t.Values {
		w.exact = w.exact && len(v) < markedMax && len(t.Values) <= maxLookups
	}
	if !w.exact {
		p.columns = append(p.columns, f)
	}
	if t.Op != logquery.Equal || t.Not && !w.exact {
		return
	}
	lookups := 0
	for i, v := range t.Values {
		var list []word
		switch f.slot {
		case slotService:
			list = []word{{marked(serviceMark, v), t.Prefix[i]}}
		case slotFile:
			list = []word{{marked(fileMark, v), t.Prefix[i]}}
		default:
			list = valueWords(v, t.Prefix[i])
		}
		if len(list) == 0 {
			return
		}
		w.any = append(w.any, list)
		if lookups += len(list); lookups > maxLookups {
			return
		}
	}
	p.words = append(p.words, w)
}

// valueWords are words that every value has which is v, or begins with v.
func valueWords(v string, prefix bool) []word {
	tokens := logquery.Tokens(v)
	if len(tokens) > 4 {
		return words(tokens[:4], false) // these tell enough
	}
	if !prefix || len(tokens) == 0 {
		return words(tokens, false)
	}
	// The last word may go on, unless v ends after it.
	longer := logquery.Tokens(v + "a")
	return words(tokens, len(longer) == len(tokens))
}
