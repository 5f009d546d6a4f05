//go:build linux

package nft

import "fmt"

// VPNState says whether lane vpn reaches the internet.
type VPNState uint8

// The states of lane vpn, each letting through more than the one before. Down is the zero value because it is the safe one.
const (
	VPNDown VPNState = iota // devices are told at once that nothing is reachable
	VPNUp                   // devices reach the internet through the server's address
)

// String gives the word for people and logs.
func (s VPNState) String() string {
	switch s {
	case VPNDown:
		return "down"
	case VPNUp:
		return "up"
	}
	return fmt.Sprintf("VPNState(%d)", uint8(s))
}

// TorState says where packets of lane tor go.
type TorState uint8

// The states of lane tor, each letting through more than the one before. Blocked
// is the zero value because it is the safe one. In none of them a packet of
// the lane is forwarded: the states differ in which ports of this host devices
// are redirected to. All but blocked need Config.TransPort and its siblings.
const (
	TorBlocked     TorState = iota // nowhere, and devices are told at once
	TorMaintenance                 // TCP 80 to PagePort, nothing else
	TorUp                          // DNS to DNSPort, all other TCP to TransPort, nothing else
)

// String gives the word for people and logs.
func (s TorState) String() string {
	switch s {
	case TorBlocked:
		return "blocked"
	case TorMaintenance:
		return "maintenance"
	case TorUp:
		return "up"
	}
	return fmt.Sprintf("TorState(%d)", uint8(s))
}

// State is what the rules let through. The zero value is safe: nothing leaves
// either lane. The control port answers in every state.
type State struct {
	VPN VPNState
	Tor TorState
}

// String gives "vpn up, tor blocked".
func (s State) String() string { return fmt.Sprintf("vpn %s, tor %s", s.VPN, s.Tor) }

// valid tells whether there is such a state.
func (s State) valid() bool { return s.VPN <= VPNUp && s.Tor <= TorUp }

// valid tells whether there are rules for the state with this configuration.
func (c Config) valid(s State) bool { return s.valid() && (s.Tor == TorBlocked || c.redirects()) }

// forwardsLess tells whether s forbids something to be forwarded that last let
// through. The state of lane tor has no say: nothing of the lane is forwarded in
// any of them. Leaving up closes ports of this host, and a packet that reaches
// one a moment later has left for nowhere.
func (s State) forwardsLess(last State) bool { return s.VPN < last.VPN }
