// Package tor declares the operations of the service that owns the tor process
// of lane tor: wish and observation, circuits and streams, identities, exits,
// bridges. It owns no behaviour.
package tor

import (
	"net/netip"
	"time"

	"vpnd/pkg/rpc"
)

// Wish is what the operator wants of the lane.
type Wish string

// The wishes.
const (
	WishUp          Wish = "up"
	WishMaintenance Wish = "maintenance"
	WishDown        Wish = "down"
)

// ProcessState is what is known about the tor process.
type ProcessState string

// The states of the process.
const (
	ProcessMissing  ProcessState = "missing"  // no tor binary on this host
	ProcessStopped  ProcessState = "stopped"  // by wish
	ProcessStarting ProcessState = "starting" // launched, does not answer yet
	ProcessRunning  ProcessState = "running"
	ProcessHung     ProcessState = "hung"   // runs, does not answer
	ProcessFailed   ProcessState = "failed" // died, will be started again
)

// Bootstrap is how far tor has come.
type Bootstrap struct {
	Percent int    `json:"percent" minimum:"0" maximum:"100"`
	Tag     string `json:"tag,omitempty" doc:"such as loading_descriptors"`
	Summary string `json:"summary,omitempty" doc:"one sentence of tor's"`
	Warning string `json:"warning,omitempty" doc:"why it does not go on, in tor's words"`
}

// Probe is the last three-hop circuit built as a test.
type Probe struct {
	OK      bool       `json:"ok"`
	At      *time.Time `json:"at,omitempty"`
	TookMs  int64      `json:"took_ms"`
	Message string     `json:"message,omitempty"`
}

// Status is everything known about lane tor's Tor.
type Status struct {
	Wish        Wish   `json:"wish" enum:"up,maintenance,down"`
	WishProcess string `json:"wish_process" enum:"start,stop"`
	Message     string `json:"message,omitempty" doc:"the operator's words on the maintenance page"`

	Lane   string    `json:"lane" enum:"up,maintenance,blocked" doc:"what the lane is in, as lanes says"`
	Reason string    `json:"reason,omitempty" doc:"why it is not up"`
	Hint   string    `json:"hint,omitempty" doc:"what to do about it"`
	Since  time.Time `json:"since" doc:"when the lane entered its state"`

	Process       ProcessState `json:"process" enum:"missing,stopped,starting,running,hung,failed"`
	PID           int          `json:"pid,omitempty"`
	Version       string       `json:"version,omitempty"`
	StartedAt     *time.Time   `json:"started_at,omitempty"`
	Restarts      int          `json:"restarts" doc:"times tor was started again after it died or hung, since the service started"`
	Bootstrap     Bootstrap    `json:"bootstrap"`
	EnoughDirInfo bool         `json:"enough_dir_info"`
	Circuit       bool         `json:"circuit_established"`
	NetworkLive   bool         `json:"network_live"`
	Probe         Probe        `json:"probe"`
	ClockSkew     int64        `json:"clock_skew_seconds,omitempty" doc:"how far this host's clock seems off, as relays say"`

	Circuits  int     `json:"circuits"`
	Streams   int     `json:"streams"`
	RxBytes   int64   `json:"rx_bytes" doc:"read by this tor process"`
	TxBytes   int64   `json:"tx_bytes"`
	Isolation string  `json:"isolation" enum:"device,destination"`
	Bridges   bool    `json:"bridges" doc:"bridges are in use"`
	Exit      *Choice `json:"exit,omitempty" doc:"the global exit choice"`
	Exits     int     `json:"exit_users" doc:"users with an exit choice of their own"`
}

// GetStatus tells all. It never fails because tor does.
var GetStatus = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "tor.status", Method: "GET", Path: "/v1/tor", Access: rpc.View, From: []string{"control"}, Summary: "State of lane tor's Tor",
}}

// WishRequest sets the wish for the lane.
type WishRequest struct {
	Body struct {
		Wish    Wish   `json:"wish" enum:"up,maintenance,down"`
		Message string `json:"message,omitempty" maxLength:"300" doc:"maintenance: what devices are told"`
		Reason  string `json:"reason,omitempty" maxLength:"300" doc:"why; shown in status"`
	}
}

// SetWish notes the wish and returns when lanes has the state that follows
// from it: after down or maintenance nothing passes any more; after up the
// lane is up, or the answer says why not yet.
var SetWish = rpc.Op[WishRequest, Status]{Info: rpc.Info{
	ID: "tor.set", Method: "PUT", Path: "/v1/tor/wish", Access: rpc.Admin, From: []string{"control", "canary"}, Summary: "Bring lane tor up, down or into maintenance",
}}

// Start wants the process to run.
var Start = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "tor.start", Method: "POST", Path: "/v1/tor/start", Access: rpc.Admin, From: []string{"control"}, Repeatable: true, Summary: "Start tor",
}}

// Stop wants it not to run; the lane is in maintenance meanwhile. It returns when the process has ended.
var Stop = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "tor.stop", Method: "POST", Path: "/v1/tor/stop", Access: rpc.Admin, From: []string{"control"}, Repeatable: true, Timeout: 30 * time.Second, Summary: "Stop tor",
}}

// Hop is one relay of a circuit.
type Hop struct {
	Fingerprint string     `json:"fingerprint"`
	Nickname    string     `json:"nickname,omitempty"`
	Address     netip.Addr `json:"address,omitzero"`
	Country     string     `json:"country,omitempty" doc:"two letters, lower case; empty when unknown"`
}

// Circuit is one circuit of tor.
type Circuit struct {
	ID      string    `json:"id"`
	State   string    `json:"state" doc:"LAUNCHED, BUILT, EXTENDED, GUARD_WAIT, CLOSING, FAILED or CLOSED; closing: no stream uses it any more"`
	Purpose string    `json:"purpose"`
	Path    []Hop     `json:"path" doc:"guard first"`
	Created time.Time `json:"created_at"`
	Streams int       `json:"streams"`
	Ours    bool      `json:"ours" doc:"chosen by vpnd for an exit choice"`
	Devices []Owner   `json:"devices" doc:"whose streams it carries or carried"`
}

// Owner is a device as streams know it.
type Owner struct {
	User    string     `json:"user,omitempty"`
	Device  string     `json:"device,omitempty" doc:"device name"`
	Address netip.Addr `json:"address,omitzero" doc:"in lane tor"`
}

// Stream is one connection or lookup through tor.
type Stream struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Target  string `json:"target" doc:"host:port"`
	Circuit string `json:"circuit,omitempty"`
	Owner   Owner  `json:"owner"`
}

// CircuitRef names a circuit.
type CircuitRef struct {
	ID string `path:"id" pattern:"^[0-9A-Za-z]{1,16}$"`
}

// Circuits, streams.
var (
	ListCircuits = rpc.Op[struct{}, rpc.List[Circuit]]{Info: rpc.Info{
		ID: "tor.circuit.list", Method: "GET", Path: "/v1/tor/circuits", Access: rpc.View, From: []string{"control"}, Summary: "List circuits",
	}}
	GetCircuit = rpc.Op[CircuitRef, Circuit]{Info: rpc.Info{
		ID: "tor.circuit.get", Method: "GET", Path: "/v1/tor/circuits/{id}", Access: rpc.View, From: []string{"control"}, Summary: "Show one circuit",
	}}
	CloseCircuit = rpc.Op[CircuitRef, rpc.None]{Info: rpc.Info{
		ID: "tor.circuit.close", Method: "DELETE", Path: "/v1/tor/circuits/{id}", Access: rpc.Admin, From: []string{"control"}, Summary: "Close a circuit",
	}}
	ListStreams = rpc.Op[struct{}, rpc.List[Stream]]{Info: rpc.Info{
		ID: "tor.stream.list", Method: "GET", Path: "/v1/tor/streams", Access: rpc.View, From: []string{"control"}, Summary: "List streams and whose they are",
	}}
)

// NewIDRequest names whose identity changes; exactly one of the three.
type NewIDRequest struct {
	Body struct {
		User   string `json:"user,omitempty" maxLength:"64" doc:"username or id"`
		Device string `json:"device,omitempty" maxLength:"129" doc:"username/device of a connected device, or a session id"`
		All    bool   `json:"all,omitempty"`
	}
}

// NewIDReply tells what was closed.
type NewIDReply struct {
	Devices  int `json:"devices"`
	Circuits int `json:"circuits" doc:"closed"`
	Streams  int `json:"streams" doc:"closed"`
}

// NewID closes the circuits of one device, of one user's or of all devices;
// what they open next takes other circuits. Others keep theirs.
var NewID = rpc.Op[NewIDRequest, NewIDReply]{Info: rpc.Info{
	ID: "tor.newid", Method: "POST", Path: "/v1/tor/newid", Access: rpc.Admin, From: []string{"control"}, Summary: "Give devices a new identity",
}}

// Choice says where streams should leave Tor.
type Choice struct {
	User   string   `json:"user,omitempty" doc:"username; empty for the global choice"`
	Exits  []string `json:"exits" doc:"country codes (de) or fingerprints of relays ($A1…, 40 hex digits)"`
	Strict bool     `json:"strict" doc:"strict: no such exit means no connection; otherwise tor chooses then"`
	Usable int      `json:"usable" doc:"running exits that match"`
}

// ExitRequest sets a choice. User in the path is - for the global one.
type ExitRequest struct {
	User string `path:"user" maxLength:"64" doc:"username or id; - for the global choice"`
	Body struct {
		Exits  []string `json:"exits" minItems:"1" maxItems:"50" maxLength:"64"`
		Strict bool     `json:"strict"`
	}
}

// ExitReply is the choice and what is risky about it.
type ExitReply struct {
	Choice  Choice `json:"choice"`
	Warning string `json:"warning,omitempty" doc:"such as: only 2 exits match"`
}

// UserRef names a user, or - for all.
type UserRef struct {
	User string `path:"user" maxLength:"64"`
}

// Exits.
var (
	ListExits = rpc.Op[struct{}, rpc.List[Choice]]{Info: rpc.Info{
		ID: "tor.exit.list", Method: "GET", Path: "/v1/tor/exits", Access: rpc.View, From: []string{"control"}, Summary: "List exit choices, the global one first",
	}}
	SetExit = rpc.Op[ExitRequest, ExitReply]{Info: rpc.Info{
		ID: "tor.exit.set", Method: "PUT", Path: "/v1/tor/exits/{user}", Access: rpc.Admin, From: []string{"control"}, Summary: "Choose where a user's, or everybody's, streams leave Tor",
	}}
	ClearExit = rpc.Op[UserRef, rpc.None]{Info: rpc.Info{
		ID: "tor.exit.clear", Method: "DELETE", Path: "/v1/tor/exits/{user}", Access: rpc.Admin, From: []string{"control"}, Summary: "Leave the exit to tor again",
	}}
)

// Relay is one relay of the consensus.
type Relay struct {
	Fingerprint string     `json:"fingerprint"`
	Nickname    string     `json:"nickname"`
	Address     netip.Addr `json:"address"`
	IPv6        bool       `json:"ipv6" doc:"exits to IPv6 targets"`
	Country     string     `json:"country,omitempty"`
	Bandwidth   int64      `json:"bandwidth" doc:"consensus weight, kB/s"`
	Flags       []string   `json:"flags"`
	Exit        bool       `json:"exit" doc:"usable as an exit"`
}

// RelayRequest filters relays.
type RelayRequest struct {
	Exit    bool   `query:"exit" doc:"usable exits only"`
	Country string `query:"country" maxLength:"2"`
	Limit   int    `query:"limit" minimum:"1" maximum:"20000" default:"20000"`
}

// ListRelays lists relays of the consensus, the fastest first.
var ListRelays = rpc.Op[RelayRequest, rpc.List[Relay]]{Info: rpc.Info{
	ID: "tor.relay.list", Method: "GET", Path: "/v1/tor/relays", Access: rpc.View, From: []string{"control"}, Summary: "List relays",
}}

// Bridge is one configured bridge.
type Bridge struct {
	ID          string `json:"id" doc:"first 12 hex digits of SHA-256 of its line"`
	Line        string `json:"line" doc:"as tor takes it"`
	Transport   string `json:"transport,omitempty" doc:"obfs4, snowflake, webtunnel; empty for a plain one"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Available   bool   `json:"available" doc:"the transport's program is there"`
	Message     string `json:"message,omitempty" doc:"what is missing"`
}

// BridgeRequest adds one.
type BridgeRequest struct {
	Body struct {
		Line string `json:"line" minLength:"7" maxLength:"1000" doc:"a bridge line, with or without the word Bridge"`
	}
}

// BridgeRef names one.
type BridgeRef struct {
	ID string `path:"id" pattern:"^[0-9a-f]{4,12}$"`
}

// BridgeTest is how reaching it went.
type BridgeTest struct {
	OK      bool   `json:"ok"`
	TookMs  int64  `json:"took_ms"`
	Message string `json:"message,omitempty"`
}

// BridgeUse switches bridges on or off.
type BridgeUse struct {
	Body struct {
		Enabled bool `json:"enabled"`
	}
}

// Bridges.
var (
	ListBridges = rpc.Op[struct{}, rpc.List[Bridge]]{Info: rpc.Info{
		ID: "tor.bridge.list", Method: "GET", Path: "/v1/tor/bridges", Access: rpc.View, From: []string{"control"}, Summary: "List bridges",
	}}
	AddBridge = rpc.Op[BridgeRequest, Bridge]{Info: rpc.Info{
		ID: "tor.bridge.add", Method: "POST", Path: "/v1/tor/bridges", Access: rpc.Admin, From: []string{"control"}, Summary: "Add a bridge",
	}}
	RemoveBridge = rpc.Op[BridgeRef, rpc.None]{Info: rpc.Info{
		ID: "tor.bridge.remove", Method: "DELETE", Path: "/v1/tor/bridges/{id}", Access: rpc.Admin, From: []string{"control"}, Summary: "Remove a bridge",
	}}
	TestBridge = rpc.Op[BridgeRef, BridgeTest]{Info: rpc.Info{
		ID: "tor.bridge.test", Method: "POST", Path: "/v1/tor/bridges/{id}/test", Access: rpc.Admin, From: []string{"control"}, Timeout: time.Minute, Quiet: true, Summary: "Try to reach a bridge",
	}}
	UseBridges = rpc.Op[BridgeUse, Status]{Info: rpc.Info{
		ID: "tor.bridge.use", Method: "PUT", Path: "/v1/tor/bridges", Access: rpc.Admin, From: []string{"control"}, Summary: "Use bridges, or do not",
	}}
)

// IsolationRequest sets how streams are kept apart.
type IsolationRequest struct {
	Body struct {
		Isolation string `json:"isolation" enum:"device,destination" doc:"device: one device, one set of circuits; destination: besides, another circuit for every destination"`
	}
}

// SetIsolation holds for streams opened from now on.
var SetIsolation = rpc.Op[IsolationRequest, Status]{Info: rpc.Info{
	ID: "tor.isolation.set", Method: "PUT", Path: "/v1/tor/isolation", Access: rpc.Admin, From: []string{"control"}, Summary: "Set stream isolation",
}}

// Onion is a name that a device looked up.
type Onion struct {
	Name    string     `json:"name"`
	Virtual netip.Addr `json:"virtual" doc:"the address that stands for it"`
}

// ListOnions lists the onion names that stand for an address now.
var ListOnions = rpc.Op[struct{}, rpc.List[Onion]]{Info: rpc.Info{
	ID: "tor.onion.list", Method: "GET", Path: "/v1/tor/onions", Access: rpc.View, From: []string{"control"}, Summary: "List onion names in use",
}}

// Check is what a page outside sees.
type Check struct {
	OK      bool       `json:"ok" doc:"the page answered, and saw an address that is not ours"`
	URL     string     `json:"url"`
	Seen    netip.Addr `json:"seen,omitzero" doc:"address that the page saw"`
	Country string     `json:"country,omitempty"`
	TookMs  int64      `json:"took_ms"`
	Message string     `json:"message,omitempty"`
}

// RunCheck fetches the configured page through tor.
var RunCheck = rpc.Op[struct{}, Check]{Info: rpc.Info{
	ID: "tor.check", Method: "POST", Path: "/v1/tor/check", Access: rpc.Admin, From: []string{"control"}, Timeout: 40 * time.Second, Quiet: true, Repeatable: true, Summary: "Fetch a page through Tor and say what it saw",
}}

// LaneViewRequest asks for what a device may know.
type LaneViewRequest struct {
	User string `path:"user" maxLength:"64" doc:"id"`
}

// LaneView is what a user's device may know of lane tor.
type LaneView struct {
	State   string   `json:"state" enum:"up,maintenance,blocked"`
	Reason  string   `json:"reason,omitempty"`
	Exits   []string `json:"exits,omitempty" doc:"the exit choice that holds for the user"`
	Strict  bool     `json:"strict,omitempty"`
	Country string   `json:"country,omitempty" doc:"of the exit that the user's latest circuit uses"`
}

// GetLaneView tells sessions what to tell a device.
var GetLaneView = rpc.Op[LaneViewRequest, LaneView]{Info: rpc.Info{
	ID: "tor.view", Method: "GET", Path: "/v1/tor/view/{user}", Access: rpc.Internal, From: []string{"sessions"}, Summary: "What a user's devices may know of lane tor",
}}
