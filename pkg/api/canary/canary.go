// Package canary declares the operations of the service that tries to leak: a
// device of vpnd's own that sends what must not get out, and counts. It owns no
// behaviour.
package canary

import (
	"time"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/rpc"
)

// RunRequest says which lane.
type RunRequest struct {
	Body struct {
		Lane lanes.Name `json:"lane" enum:"tor,vpn"`
	}
}

// Attempt is one kind of packet that was sent.
type Attempt struct {
	Kind   string `json:"kind" doc:"such as tcp, udp53, udp443, icmp, fragment, dns, host-tcp"`
	Family string `json:"family" enum:"ipv4,ipv6"`
	Sent   int    `json:"sent"`
	Answer string `json:"answer,omitempty" doc:"what came back: reset, refused, reply, nothing"`
	Leaked bool   `json:"leaked" doc:"an answer came that nobody but the internet or a service of the host can have given"`
}

// Result is one test.
type Result struct {
	Lane      lanes.Name `json:"lane"`
	OK        bool       `json:"ok"`
	At        time.Time  `json:"at"`
	TookMs    int64      `json:"took_ms"`
	LaneState string     `json:"lane_state"`
	Sent      int        `json:"sent" doc:"packets"`
	Left      uint64     `json:"left" doc:"packets of the canary that left by another interface"`
	Reached   uint64     `json:"reached" doc:"packets of the canary that reached services of the host"`
	Repaired  string     `json:"repaired,omitempty" doc:"what somebody had changed of the rules since the last test"`
	Attempts  []Attempt  `json:"attempts"`
	Message   string     `json:"message" doc:"one sentence"`
}

// Run runs a test now.
var Run = rpc.Op[RunRequest, Result]{Info: rpc.Info{
	ID: "leaktest.run", Method: "POST", Path: "/v1/leaktest", Access: rpc.Admin, From: []string{"control"}, Timeout: 30 * time.Second, Repeatable: true, Summary: "Try to leak, and say whether it worked",
}}

// Last gives the last results, the newest first.
var Last = rpc.Op[struct{}, rpc.List[Result]]{Info: rpc.Info{
	ID: "leaktest.list", Method: "GET", Path: "/v1/leaktest", Access: rpc.View, From: []string{"control"}, Summary: "Last leak tests",
}}
