// Package torpath chooses the relays of a circuit: a guard that tor uses, a
// middle, and an exit that a user's choice of countries and relays allows.
//
// It owns the rules that tor itself keeps when it builds a path (three relays,
// no two in one network or one family, relays weighted by bandwidth) and the
// words of an exit choice. It leaves fetching the consensus, building circuits
// and attaching streams to others, and does no I/O.
//
// A Consensus does not change after New and may be used concurrently, each
// call with a random source of its own.
package torpath
