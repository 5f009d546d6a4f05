// Package torctl speaks tor's control protocol over a unix socket, and is the
// only place that knows bine.
//
// It owns authentication (cookie or none), two connections per client (one for
// commands, one for events, because an unread event must not stop a command),
// limits on time and size, the checks that keep an argument from becoming a
// second command, and the parsing of replies and events. It leaves starting
// and stopping tor, its torrc and every policy to others.
//
// A Client may be used concurrently: commands run one at a time. After an I/O
// error, a reply that makes no sense, a timeout or a cancellation in the
// middle of a command, nobody knows which reply comes next, so the client is
// broken for good: Done is closed, Err says why, and the caller dials again. A
// refusal by tor (a reply of 4xx or 5xx) does not break it.
//
// Where tor says so, errors carry a fault code: Invalid (bad argument),
// NotFound (no such circuit, stream, event or option), Conflict (a stream that
// is not ours to attach), Denied, Exhausted, Unimplemented, Unavailable.
package torctl
