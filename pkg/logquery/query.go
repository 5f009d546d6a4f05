// Package logquery is the language in which log records are asked for:
//
//	service=auth level>=warn user=alice,bob !event=ping "sign-in refused" since=1h
//
// It owns the grammar, the tokenizer of text searches and what a query means
// for one record (Match). It leaves answering over many records to logstore,
// which must mean the same. docs/logs.md is the description for people. All of
// it is pure and may be called concurrently.
package logquery

import (
	"time"

	"vpnd/pkg/logline"
)

// Limits of a query. More is an error, not a slow answer.
const (
	MaxText   = 64 << 10 // bytes
	MaxTerms  = 256
	MaxValues = 1000 // over all terms
)

// Op is how a term compares.
type Op uint8

// The operators. Text is the one of a term without a field. There is no "not
// equal": a!=b is !a=b, and so holds for records without a too.
const (
	Text Op = iota
	Equal
	Less
	LessEqual
	Greater
	GreaterEqual
)

// Term is one condition; all terms of a query must hold.
//
// Text: Values[0] is a word or phrase. Its Tokens must follow one another
// within one of the record's texts; with Prefix[0] the last one only has to
// begin so. There is at least one token.
//
// Equal: one of Values is, byte for byte, one of the field's values, or with
// its Prefix begins one; the empty prefix asks whether the field exists. For
// level the values are canonical level names, and the prefix is empty or none.
//
// The others: Values has one element, Number[0] is what it says: a number, or
// for level the rank. A value of the record that ParseNumber refuses, or an
// unknown level, never compares true.
type Term struct {
	Not    bool
	Field  string // canonical; empty for Text; never time
	Op     Op
	Values []string
	Prefix []bool    // as long as Values
	Number []float64 // as long as Values for < <= > >=, else nil
	Column int       // where the term begins, in runes from 1
}

// Query is a parsed query. The zero Query matches everything.
type Query struct {
	Terms        []Term
	Since, Until time.Time // [Since, Until), UTC, whole microseconds; zero is open
}

// Match reports whether the record is one that the query asks for. For many
// records take Matcher once.
func (q Query) Match(r *logline.Record) bool { return q.Matcher()(r) }
