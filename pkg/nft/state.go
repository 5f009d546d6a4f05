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

// The states of lane tor. Blocked is the zero value because it is the safe one.
const (
	TorBlocked TorState = iota // nowhere, and devices are told at once
)

// String gives the word for people and logs.
func (s TorState) String() string {
	if s == TorBlocked {
		return "blocked"
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

// valid tells whether there are rules for the state.
func (s State) valid() bool { return s.VPN <= VPNUp && s.Tor <= TorBlocked }
