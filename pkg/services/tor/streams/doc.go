// Package streams puts every stream of lane tor on a circuit: it knows whose a
// stream is, keeps a user's exit choice, and closes what belongs to one device
// and nothing else when a new identity is wanted.
//
// tor tells the source of a stream once, when the stream is new, and forgets it
// for the control port. So tor leaves all streams unattached
// (__LeaveStreamsUnattached), and the source is written to a journal before a
// stream is attached; a service that was killed finds it there. Without a
// choice a stream is given back to tor, which then chooses as it always does.
//
// The package leaves to others: the connection to tor, whose an address is,
// which choice holds, and how a path is chosen (package torpath).
//
//	NEW ─▶ whose? ─▶ which choice? ─┬─ none, onion ─────────────▶ tor chooses
//	                                ├─ circuit there ───────────▶ attached
//	                                ├─ circuit built, waits ────▶ attached, or again
//	                                └─ no exit ── strict: closed; prefer: tor chooses
package streams
