package rpc

import "time"

// Access is what an operation asks of people and programs that reach it over
// the control socket. Sibling services are admitted by name instead, see From.
type Access string

// The access levels, weakest first. Internal operations are never offered on
// the control socket.
const (
	Internal Access = "internal" // siblings only
	Public   Access = "public"   // anyone who reaches the listener
	Bearer   Access = "bearer"   // a device with a valid access token
	View     Access = "view"     // may look
	Admin    Access = "admin"    // may change
)

// Allows tells whether a caller with level have may call what needs a. Only
// View and Admin are ordered.
func (a Access) Allows(have Access) bool {
	switch a {
	case Public:
		return true
	case View:
		return have == View || have == Admin
	case Admin:
		return have == Admin
	}
	return false
}

// Info is the part of an operation that does not depend on its types.
type Info struct {
	ID      string   // noun.verb, unique, such as "user.create"
	Method  string   // HTTP method
	Path    string   // HTTP path; {names} are filled from `path` fields
	Summary string   // one line, for OpenAPI and manuals
	Access  Access   // who may call it on the control socket
	From    []string // siblings that may call it; empty means every sibling the socket admits

	// Repeatable says that sending the call again after a broken connection
	// does no harm: the service answers the second as it did the first.
	// GET and DELETE are repeatable by their method.
	Repeatable bool

	// Timeout bounds the call when the caller sets no deadline. Zero is DefaultTimeout.
	Timeout time.Duration

	// MaxBody is the largest request body, in bytes; zero is MaxBody.
	MaxBody int64

	// Quiet keeps a call that is no GET out of the audit trail: it changes
	// nothing that an operator would ask about.
	Quiet bool
}

// DefaultTimeout bounds calls whose operation and context say nothing.
const DefaultTimeout = 10 * time.Second

func (i Info) timeout() time.Duration {
	if i.Timeout > 0 {
		return i.Timeout
	}
	return DefaultTimeout
}

// Changes tells whether calls belong in the audit trail.
func (i Info) Changes() bool { return i.Method != "GET" && !i.Quiet }

func (i Info) bodyLimit() int64 {
	if i.MaxBody > 0 {
		return i.MaxBody
	}
	return MaxBody
}

func (i Info) repeatable() bool {
	return i.Repeatable || i.Method == "GET" || i.Method == "DELETE" || i.Method == "PUT"
}

// None is the response type of operations that answer 204.
type None struct{}

// Op declares an operation. Req is a struct with `path`, `query` and `header`
// fields and, where there is a body, a field Body. Resp is the JSON answer, or
// None. The zero value is not usable.
//
// A path field is never empty. A query or header field that is zero is not
// sent, and so means its `default`.
type Op[Req, Resp any] struct{ Info }

// Stream declares an operation that answers with server-sent events of one
// type. A slow reader is disconnected by the server's write timeout; feeds
// that drop instead say so in their event type.
type Stream[Req, Event any] struct{ Info }

// List is the shape of every list answer.
type List[T any] struct {
	Items []T    `json:"items" doc:"the page"`
	Total int    `json:"total" doc:"how many there are in all"`
	Next  string `json:"next,omitempty" doc:"cursor of the next page; absent on the last"`
}

// complete makes an empty list [] on the wire, never null.
func (l *List[T]) complete() {
	if l.Items == nil {
		l.Items = []T{}
	}
}
