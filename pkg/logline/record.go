// Package logline says what one line of a log file means: a Record with a
// time, a level, the names and ids that every service shares, and every other
// key as a field.
//
// It owns the spelling of the known keys, the recognition of times and levels,
// and the one-line JSON form of a record. It leaves files and positions to
// logtail, keeping to logstore, and questions to logquery. Everything here is
// pure; every function may be called concurrently, a Record not while it is
// changed.
package logline

import (
	"iter"
	"time"
)

// Bounds of one record. What is beyond them is kept, but as text.
const (
	MaxLine   = 1 << 20 // bytes of a line; Parse cuts what is longer
	MaxFields = 1024    // fields with a name; the rest go, as one JSON object, into the field "more"
	MaxDepth  = 8       // levels of nested objects that are flattened; deeper ones stay JSON text
)

// Kind is what a field's value was in its line, so that JSON can write it back.
type Kind uint8

// The kinds. JSON is an array, an empty object or one nested too deeply.
const (
	String Kind = iota
	Number
	Bool
	Null
	JSON
)

// Field is one key that has no place of its own in Record. Keys of nested
// objects are joined with dots. A known key that came twice, or whose value
// says nothing as one, is here under its canonical name.
type Field struct {
	Key   string
	Value string // text of a string; a number, true, false, null or JSON as it was written
	Kind  Kind
}

// Record is one line. An empty string means that the line does not say.
type Record struct {
	Time                             time.Time // UTC, whole microseconds, never zero
	Level                            Level
	Service, Event, Message          string
	User, Device, Session, RequestID string
	Fields                           []Field // in the order of the line
	File                             string
	Cut                              bool // the line was longer than MaxLine
}

// Defaults is what the place of a line says about it.
type Defaults struct {
	Service string // when the line names none
	File    string
	Now     time.Time // the time of a line that has none, or an impossible one
	Cut     bool      // the line had been cut before it came here
}

// Text is what a person reads first: the message, or else the event.
func (r *Record) Text() string {
	if r.Message != "" {
		return r.Message
	}
	return r.Event
}

// Pairs yields every name and value that a query can ask for by equality, time
// and level excepted. A name may come more than once.
func (r *Record) Pairs() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range slots {
			if v := *r.slot(slots[i]); v != "" && !yield(slots[i], v) {
				return
			}
		}
		for i := range r.Fields {
			if !yield(r.Fields[i].Key, r.Fields[i].Value) {
				return
			}
		}
	}
}

// Texts yields every value that a text search looks at: the message, the
// event, the ids and all fields; not the service and the file, which are names
// of places and would make every line of a service a hit.
func (r *Record) Texts() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, v := range [...]string{r.Message, r.Event, r.User, r.Device, r.Session, r.RequestID} {
			if v != "" && !yield(v) {
				return
			}
		}
		for i := range r.Fields {
			if v := r.Fields[i].Value; v != "" && !yield(v) {
				return
			}
		}
	}
}

// Get gives the first value of a name as queries write it: time (RFC 3339),
// level, service, event, message, user, device, session, request_id, file, or
// any field. Other spellings of the known names are understood.
func (r *Record) Get(field string) (value string, ok bool) {
	name := Canonical(field)
	switch name {
	case "time":
		return r.Time.UTC().Format(TimeLayout), true
	case "level":
		if r.Level != Unknown {
			return r.Level.String(), true
		}
	}
	if p := r.slot(name); p != nil && *p != "" {
		return *p, true
	}
	for i := range r.Fields {
		if r.Fields[i].Key == name {
			return r.Fields[i].Value, true
		}
	}
	return "", false
}

// slots are the known names that hold plain text, in the order of JSON.
var slots = [...]string{"service", "event", "message", "user", "device", "session", "request_id", "file"}

func (r *Record) slot(name string) *string {
	switch name {
	case "service":
		return &r.Service
	case "event":
		return &r.Event
	case "message":
		return &r.Message
	case "user":
		return &r.User
	case "device":
		return &r.Device
	case "session":
		return &r.Session
	case "request_id":
		return &r.RequestID
	case "file":
		return &r.File
	}
	return nil
}
