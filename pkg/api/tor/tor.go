// Package tor declares the operations of the service that owns the tor process
// of lane tor: what the operator wishes, and what is observed. It owns no behaviour.
package tor

import (
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

	RxBytes int64 `json:"rx_bytes" doc:"read by this tor process"`
	TxBytes int64 `json:"tx_bytes"`
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
	ID: "tor.set", Method: "PUT", Path: "/v1/tor/wish", Access: rpc.Admin, From: []string{"control"}, Summary: "Bring lane tor up, down or into maintenance",
}}

// Start wants the process to run.
var Start = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "tor.start", Method: "POST", Path: "/v1/tor/start", Access: rpc.Admin, From: []string{"control"}, Repeatable: true, Summary: "Start tor",
}}

// Stop wants it not to run; the lane is in maintenance meanwhile. It returns when the process has ended.
var Stop = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "tor.stop", Method: "POST", Path: "/v1/tor/stop", Access: rpc.Admin, From: []string{"control"}, Repeatable: true, Timeout: 30 * time.Second, Summary: "Stop tor",
}}
