// Package agentapi declares the operations of the agent, the background process
// that keeps the tunnel: what `vpn up`, `down` and `status` ask of it over its
// Unix socket. It owns no behaviour.
package agentapi

import (
	"net/netip"
	"time"

	"vpnd/client/profile"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// State of the tunnel.
type State string

// The states. In every state but Down and the first Connecting, what the tunnel
// does not carry goes nowhere.
const (
	Down       State = "down"
	Connecting State = "connecting" // no handshake yet
	Up         State = "up"         // the latest handshake is younger than three minutes
	Stale      State = "stale"      // it is older: the server may not hear us
	Closed     State = "closed"     // the server ended the session, see Reason
	Crashed    State = "crashed"    // the agent died; traffic is blocked
)

// Heartbeat is how the server was last told that this device is there.
type Heartbeat struct {
	State  string     `json:"state" enum:"none,ok,failing" doc:"none: not sent yet"`
	Way    string     `json:"way,omitempty" enum:"inside,outside" doc:"through the tunnel or around it"`
	LastOK *time.Time `json:"last_ok,omitempty"`
	Error  string     `json:"error,omitempty"`
}

// Token is how the sign-in is doing. It has no influence on the tunnel.
type Token struct {
	State          string     `json:"state" enum:"none,valid,expired,uncertain,refused" doc:"expired: the access token is, a renewal is due; uncertain: a renewal was sent and no answer came; refused: sign in again"`
	AccessExpires  *time.Time `json:"access_expires,omitempty"`
	RefreshExpires *time.Time `json:"refresh_expires,omitempty"`
	Error          string     `json:"error,omitempty"`
}

// Status is all there is to know of the tunnel.
type Status struct {
	State    State     `json:"state" enum:"down,connecting,up,stale,closed,crashed"`
	Reason   string    `json:"reason,omitempty" doc:"why it is closed: the server's word"`
	Message  string    `json:"message,omitempty" doc:"what to know or do, for people"`
	Since    time.Time `json:"since,omitzero" doc:"when it entered this state"`
	Began    time.Time `json:"began_at,omitzero" doc:"when the tunnel was brought up; rx_bytes and tx_bytes count from then, in all lanes and sessions"`
	Blocking bool      `json:"blocking" doc:"what the tunnel does not carry goes nowhere"`

	Lane profile.Lane `json:"lane,omitempty" enum:"vpn,tor"`
	// LaneState is the server's word, asked for through the tunnel.
	LaneState *client.LaneState `json:"lane_state,omitempty" doc:"how the lane is at the server; unknown: it did not answer, or is too old to tell; absent: not asked yet"`
	Interface string            `json:"interface,omitempty"`
	SessionID id.Session        `json:"session_id,omitempty"`
	Server    string            `json:"server,omitempty" doc:"host and port of the client API"`
	Endpoint  string            `json:"endpoint,omitempty" doc:"where WireGuard packets are sent"`
	Addresses []netip.Prefix    `json:"addresses,omitempty"`
	DNS       []netip.Addr      `json:"dns,omitempty"`

	LastHandshake *time.Time `json:"last_handshake,omitempty"`
	RxBytes       uint64     `json:"rx_bytes"`
	TxBytes       uint64     `json:"tx_bytes"`
	Heartbeat     Heartbeat  `json:"heartbeat"`
	Token         Token      `json:"token"`
	PID           int        `json:"pid,omitempty"`
}

// StatusRequest asks for the status.
type StatusRequest struct {
	Check bool `query:"check" doc:"ask the server first whether the session is still there, and how the lane is, unless it said so just now"`
}

// GetStatus gives the status.
var GetStatus = rpc.Op[StatusRequest, Status]{Info: rpc.Info{
	ID: "agent.status", Method: "GET", Path: "/v1/status", Access: rpc.Admin, Summary: "State of the tunnel",
}}

// WatchStatus gives the status now and whenever it changes, counters aside.
var WatchStatus = rpc.Stream[struct{}, Status]{Info: rpc.Info{
	ID: "agent.watch", Method: "GET", Path: "/v1/status/watch", Access: rpc.Admin, Summary: "State of the tunnel, as it changes",
}}

// UpRequest says what tunnel is wanted.
type UpRequest struct {
	Body struct {
		Lane      profile.Lane `json:"lane,omitempty" enum:"vpn,tor" doc:"empty: the one used last"`
		Interface string       `json:"interface" maxLength:"15" doc:"name for the interface, if there is none yet"`
		Wait      bool         `json:"wait" doc:"answer when the tunnel is up; when the caller leaves before, a tunnel that never was up is given up"`
		Patience  int          `json:"patience,omitempty" minimum:"0" maximum:"600" doc:"seconds to wait; 0: 30"`
	}
}

// PostUp brings the tunnel up, or changes its lane.
var PostUp = rpc.Op[UpRequest, Status]{Info: rpc.Info{
	ID: "agent.up", Method: "POST", Path: "/v1/up", Access: rpc.Admin, Summary: "Bring the tunnel up, or change its lane",
	Timeout: 11 * time.Minute,
}}

// SwitchRequest names the lane to go on in.
type SwitchRequest struct {
	Body struct {
		Lane     profile.Lane `json:"lane" enum:"vpn,tor"`
		Patience int          `json:"patience,omitempty" minimum:"0" maximum:"600" doc:"seconds to wait; 0: 30"`
	}
}

// PostLane changes the lane of a tunnel that there is, and answers when the
// server has answered in the new one. Until then traffic is blocked. It fails
// with conflict, reason not_up, when there is no tunnel.
var PostLane = rpc.Op[SwitchRequest, Status]{Info: rpc.Info{
	ID: "agent.lane", Method: "POST", Path: "/v1/lane", Access: rpc.Admin, Summary: "Change the tunnel's lane",
	Timeout: 11 * time.Minute,
}}

// PostDown takes the tunnel down, restores the system and ends the agent.
var PostDown = rpc.Op[struct{}, rpc.None]{Info: rpc.Info{
	ID: "agent.down", Method: "POST", Path: "/v1/down", Access: rpc.Admin, Summary: "Take the tunnel down and end the agent",
	Timeout: 30 * time.Second, Repeatable: true,
}}
