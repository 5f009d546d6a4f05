// Package cli is vpnctl: commands, flags, prompts and output around the
// operations of the control socket.
//
// Each command is a file: an options struct, newX that knows cobra, runX that
// does not. Nothing here decides what is allowed or what exists; vpnd does.
// How things look is pkg/view's. Main runs once per process.
package cli
