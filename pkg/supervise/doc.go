//go:build linux

// Package supervise starts programs, watches them, and starts them again.
//
// It owns the processes of the services it is given, the sockets they answer
// on, and what is known about each: state, reason, last exit, the last lines
// of standard error. It leaves to others what the services do, where their
// list comes from, and who may ask for a change. It knows the wire only as far
// as the heartbeat: one JSON line on the service's Unix socket.
//
// A Supervisor must run as root. Its methods may be called concurrently from
// any goroutine once New has returned; Run may be called once. One process
// holds at most one running Supervisor: Run marks every descriptor of the
// process close-on-exec.
//
// DESIGN.md in this folder says why every service has an operating system
// thread of its own.
package supervise
