// Package bridges is the list of Tor bridges of the tor service: which there
// are, whether they are in use, which pluggable transports this host has, and
// what follows for the torrc.
//
// It owns the file that the list is in, and the short-lived tor process that
// tries one bridge. It leaves the tor of the lane, and when it is told of a
// change, to the tor service.
//
// A Book may be used from many goroutines.
package bridges
