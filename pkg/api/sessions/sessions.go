// Package sessions declares the operations of the service that owns sessions.
// It owns no behaviour.
package sessions

import (
	"net/netip"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// State of a session.
type State string

// The states. Offline keeps the peer and its addresses.
const (
	Online  State = "online"
	Offline State = "offline"
	Closed  State = "closed"
)

// Reason is why a session is in its state.
type Reason string

// The reasons.
const (
	Connected     Reason = "connected"      // opened, or opened again with the same key
	Recovered     Reason = "recovered"      // heard from after silence
	Silent        Reason = "silent"         // neither heartbeat nor handshake in time
	ByUser        Reason = "closed_by_user" // the device closed it
	LoggedOut     Reason = "logout"
	ByAdmin       Reason = "killed" // session kill
	UserSuspended Reason = "user_suspended"
	UserDeleted   Reason = "user_deleted"
	DeviceDeleted Reason = "device_deleted"
	Replaced      Reason = "replaced"      // the device connected with another key
	TokenReuse    Reason = "token_reuse"   // a spent refresh token came again
	Expired       Reason = "expired"       // hard TTL
	LeaseReleased Reason = "lease_release" // ipam release
	Failed        Reason = "connect_failed"
)

// Session is one connection of one device.
type Session struct {
	ID            id.Session `json:"id"`
	User          id.User    `json:"user_id"`
	Username      string     `json:"username"`
	Device        id.Device  `json:"device_id"`
	DeviceName    string     `json:"device_name"`
	State         State      `json:"state" enum:"online,offline,closed"`
	Reason        Reason     `json:"reason"`
	Since         time.Time  `json:"since" doc:"when it entered this state"`
	OpenedAt      time.Time  `json:"opened_at"`
	ClosedAt      *time.Time `json:"closed_at,omitempty"`
	ExpiresAt     time.Time  `json:"expires_at" doc:"hard TTL"`
	PublicKey     string     `json:"public_key"`
	VPNIPv4       netip.Addr `json:"vpn_ipv4"`
	VPNIPv6       netip.Addr `json:"vpn_ipv6"`
	TorIPv4       netip.Addr `json:"tor_ipv4"`
	TorIPv6       netip.Addr `json:"tor_ipv6"`
	Remote        string     `json:"remote,omitempty" doc:"address the device connected from"`
	Endpoint      string     `json:"endpoint,omitempty" doc:"where its WireGuard packets come from"`
	Lane          string     `json:"lane,omitempty" doc:"lane of the latest handshake"`
	LastHeartbeat *time.Time `json:"last_heartbeat,omitempty"`
	LastHandshake *time.Time `json:"last_handshake,omitempty"`
	RxBytes       int64      `json:"rx_bytes" doc:"received from the device, both lanes"`
	TxBytes       int64      `json:"tx_bytes" doc:"sent to the device, both lanes"`
	VPNRxBytes    int64      `json:"vpn_rx_bytes"`
	VPNTxBytes    int64      `json:"vpn_tx_bytes"`
	TorRxBytes    int64      `json:"tor_rx_bytes"`
	TorTxBytes    int64      `json:"tor_tx_bytes"`
}

// InitiateRequest opens a device's session.
type InitiateRequest struct {
	Body struct {
		User      id.User   `json:"user_id" minLength:"1" maxLength:"64"`
		Device    id.Device `json:"device_id" minLength:"1" maxLength:"64"`
		PublicKey string    `json:"public_key" maxLength:"64"`
		Remote    string    `json:"remote" maxLength:"64"`
	}
}

// Initiate opens a device's session: account and device checked, addresses
// leased, session recorded, both interfaces programmed.
var Initiate = rpc.Op[InitiateRequest, client.Initiated]{Info: rpc.Info{
	ID: "sessions.initiate", Method: "POST", Path: "/v1/sessions", Access: rpc.Internal, From: []string{"gateway"},
	Repeatable: true, Summary: "Open a session",
}}

// BeatItem is one heartbeat.
type BeatItem struct {
	User   id.User   `json:"user_id"`
	Device id.Device `json:"device_id"`
	Remote string    `json:"remote"`
}

// BeatRequest is one or many heartbeats: the gateway gathers those that arrive
// together.
type BeatRequest struct {
	Body struct {
		Beats []BeatItem `json:"beats" minItems:"1" maxItems:"1024"`
	}
}

// BeatResult answers the beat at the same place.
type BeatResult struct {
	State     State  `json:"state,omitempty"`
	Recovered bool   `json:"recovered,omitempty"`
	Refused   string `json:"refused,omitempty" doc:"reason of the refusal, such as session_closed"`
	Why       Reason `json:"why,omitempty" doc:"why the session was closed"`
}

// BeatReply answers a BeatRequest.
type BeatReply struct {
	HeartbeatTTL int          `json:"heartbeat_ttl" doc:"seconds"`
	Results      []BeatResult `json:"results"`
}

// Heartbeat keeps sessions online.
var Heartbeat = rpc.Op[BeatRequest, BeatReply]{Info: rpc.Info{
	ID: "sessions.heartbeat", Method: "POST", Path: "/v1/sessions-heartbeat", Access: rpc.Internal, From: []string{"gateway"},
	Repeatable: true, Quiet: true, MaxBody: 1 << 20, Summary: "Keep sessions online",
}}

// CloseRequest closes the sessions of a device or of a user.
type CloseRequest struct {
	Body struct {
		User   id.User   `json:"user_id,omitempty" maxLength:"64" doc:"all sessions of this user"`
		Device id.Device `json:"device_id,omitempty" maxLength:"64" doc:"the session of this device"`
		Reason Reason    `json:"reason" maxLength:"32"`
		Forget bool      `json:"forget,omitempty" doc:"release the addresses too: the device or user is deleted"`
	}
}

// ClosedReply tells how many were open.
type ClosedReply struct {
	Closed int `json:"closed"`
}

// Close closes sessions and returns after their peers are gone.
var Close = rpc.Op[CloseRequest, ClosedReply]{Info: rpc.Info{
	ID: "sessions.close", Method: "POST", Path: "/v1/sessions-close", Access: rpc.Internal, From: []string{"gateway", "auth", "users"},
	Repeatable: true, Timeout: 30 * time.Second, Summary: "Close sessions; returns after their peers are gone",
}}

// ListRequest filters and pages open sessions, newest first.
type ListRequest struct {
	User  string `query:"user" maxLength:"64" doc:"username or user id"`
	State string `query:"state" enum:"online,offline" doc:"only these"`
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"100"`
	After string `query:"after" maxLength:"256" doc:"cursor from the page before"`
}

// List lists open sessions.
var List = rpc.Op[ListRequest, rpc.List[Session]]{Info: rpc.Info{
	ID: "session.list", Method: "GET", Path: "/v1/sessions", Access: rpc.View, From: []string{"control", "tor"}, Summary: "List open sessions",
}}

// Ref names a session: session id or unique prefix, username/device, or a
// username that has one session.
type Ref struct {
	Session string `path:"session" minLength:"1" maxLength:"128" doc:"session id, unique prefix, username/device, or username with one session"`
}

// Get gives one session, open or closed.
var Get = rpc.Op[Ref, Session]{Info: rpc.Info{
	ID: "session.get", Method: "GET", Path: "/v1/sessions/{session}", Access: rpc.View, From: []string{"control", "tor"}, Summary: "Show a session",
}}

// Kill closes a session and returns after its peer is gone.
var Kill = rpc.Op[Ref, Session]{Info: rpc.Info{
	ID: "session.kill", Method: "DELETE", Path: "/v1/sessions/{session}", Access: rpc.Admin, From: []string{"control"},
	Timeout: 30 * time.Second, Summary: "Close a session; returns after its peer is gone",
}}

// HistoryRequest filters and pages closed sessions, newest first.
type HistoryRequest struct {
	User   string    `query:"user" maxLength:"64" doc:"username or user id"`
	Device string    `query:"device" maxLength:"128" doc:"device id or name"`
	Since  time.Time `query:"since" doc:"closed at or after"`
	Limit  int       `query:"limit" minimum:"1" maximum:"10000" default:"100"`
	After  string    `query:"after" maxLength:"256" doc:"cursor from the page before"`
}

// History lists closed sessions.
var History = rpc.Op[HistoryRequest, rpc.List[Session]]{Info: rpc.Info{
	ID: "session.history", Method: "GET", Path: "/v1/history/sessions", Access: rpc.View, From: []string{"control"}, Summary: "List closed sessions",
}}

// LeaseRef names the device whose addresses to release.
type LeaseRef struct {
	Device string `path:"device" minLength:"1" maxLength:"128" doc:"username/name of a connected device, or device id"`
}

// ReleaseLease closes the device's session and gives its addresses back.
var ReleaseLease = rpc.Op[LeaseRef, rpc.None]{Info: rpc.Info{
	ID: "ipam.release", Method: "DELETE", Path: "/v1/ipam/leases/{device}", Access: rpc.Admin, From: []string{"control"},
	Timeout: 30 * time.Second, Summary: "Close a device's session and release its addresses",
}}

// Overview counts sessions for the status screen.
type Overview struct {
	Online     int    `json:"online"`
	Offline    int    `json:"offline"`
	Closing    int    `json:"closing" doc:"acknowledged as closed, peer still to be removed"`
	LanesEpoch string `json:"lanes_epoch"`
	Synced     bool   `json:"synced" doc:"lanes holds what sessions wants"`
}

// GetOverview counts sessions.
var GetOverview = rpc.Op[struct{}, Overview]{Info: rpc.Info{
	ID: "session.overview", Method: "GET", Path: "/v1/overview/sessions", Access: rpc.View, From: []string{"control"}, Summary: "Count sessions",
}}

// OwnerRequest names an address in a lane.
type OwnerRequest struct {
	Address netip.Addr `query:"address" doc:"of a device, in lane vpn or lane tor"`
}

// Owner is whose address it is.
type Owner struct {
	Session    id.Session   `json:"session_id"`
	User       id.User      `json:"user_id"`
	Username   string       `json:"username"`
	Device     id.Device    `json:"device_id"`
	DeviceName string       `json:"device_name"`
	Addresses  []netip.Addr `json:"addresses" doc:"all of the device in that lane"`
}

// GetOwner tells whose an address is; not_found when no open session has it.
var GetOwner = rpc.Op[OwnerRequest, Owner]{Info: rpc.Info{
	ID: "sessions.owner", Method: "GET", Path: "/v1/sessions-owner", Access: rpc.Internal, From: []string{"tor"}, Summary: "Whose address it is",
}}

// LanesRequest asks what a device may know of the lanes.
type LanesRequest struct {
	User   id.User   `query:"user" maxLength:"64"`
	Device id.Device `query:"device" maxLength:"64"`
}

// GetLanes tells a device how both lanes are. It fails with not_found when the
// device has no open session.
var GetLanes = rpc.Op[LanesRequest, client.LaneStates]{Info: rpc.Info{
	ID: "sessions.lanes", Method: "GET", Path: "/v1/sessions-lanes", Access: rpc.Internal, From: []string{"gateway"}, Summary: "How the lanes are, for a device",
}}
