// Package tunnel makes the client's tunnel out of what the machine has: a
// WireGuard device, addresses, policy routing and name servers. It owns the
// journal that says what was changed, written before each change, from which any
// later process restores the machine when this one died.
//
// It leaves to package agent what the tunnel should be and when. A *Tunnel is for
// one goroutine at a time; of all processes of a machine only one may have it,
// which the agent's lock sees to.
package tunnel
