// Package supervisor declares the operations of vpnd's supervisor. It owns no
// behaviour.
package supervisor

import (
	"time"

	"vpnd/pkg/rpc"
)

// Service is one supervised process.
type Service struct {
	Name        string     `json:"name"`
	State       string     `json:"state" enum:"disabled,stopped,starting,ready,unready,unhealthy,backoff,failed,stopping,running" doc:"running: alive, but has no heartbeat to tell more"`
	Reason      string     `json:"reason,omitempty"`
	Since       time.Time  `json:"since"`
	Enabled     bool       `json:"enabled"`
	PID         int        `json:"pid,omitempty"`
	StartedAt   *time.Time `json:"started_at,omitempty"`
	Restarts    int        `json:"restarts"`
	User        string     `json:"user"`
	Socket      string     `json:"socket,omitempty"`
	Command     []string   `json:"command"`
	LastExit    string     `json:"last_exit,omitempty" doc:"how the process before ended"`
	LastExitAt  *time.Time `json:"last_exit_at,omitempty"`
	NextStartAt *time.Time `json:"next_start_at,omitempty"`
	PingMicros  int64      `json:"ping_us,omitempty" doc:"how long the last heartbeat took"`
	Missed      int        `json:"missed,omitempty" doc:"heartbeats missed in a row"`
	StderrTail  []string   `json:"stderr_tail,omitempty" doc:"last lines of the last process that died"`
}

// List lists services.
var List = rpc.Op[struct{}, rpc.List[Service]]{Info: rpc.Info{
	ID: "service.list", Method: "GET", Path: "/v1/services", Access: rpc.View, From: []string{"control"}, Summary: "List services",
}}

// Ref names a service.
type Ref struct {
	Service string `path:"service" minLength:"1" maxLength:"64"`
}

// Get gives one service.
var Get = rpc.Op[Ref, Service]{Info: rpc.Info{
	ID: "service.get", Method: "GET", Path: "/v1/services/{service}", Access: rpc.View, From: []string{"control"}, Summary: "Show a service",
}}

// Start starts a service and returns when it is ready or has failed.
var Start = rpc.Op[Ref, Service]{Info: rpc.Info{
	ID: "service.start", Method: "POST", Path: "/v1/services/{service}/start", Access: rpc.Admin, From: []string{"control"},
	Repeatable: true, Timeout: 30 * time.Second, Summary: "Start a service",
}}

// Stop stops a service and returns when it has ended.
var Stop = rpc.Op[Ref, Service]{Info: rpc.Info{
	ID: "service.stop", Method: "POST", Path: "/v1/services/{service}/stop", Access: rpc.Admin, From: []string{"control"},
	Repeatable: true, Timeout: 30 * time.Second, Summary: "Stop a service",
}}

// Restart restarts a service and returns when it is ready or has failed.
var Restart = rpc.Op[Ref, Service]{Info: rpc.Info{
	ID: "service.restart", Method: "POST", Path: "/v1/services/{service}/restart", Access: rpc.Admin, From: []string{"control"},
	Timeout: 30 * time.Second, Summary: "Restart a service",
}}

// Changes tells what a reload did.
type Changes struct {
	Started   []string `json:"started"`
	Stopped   []string `json:"stopped" doc:"disabled, or no longer listed"`
	Restarted []string `json:"restarted"`
	Updated   []string `json:"updated" doc:"changed while stopped; the change counts when they start"`
	Unchanged []string `json:"unchanged"`
}

// Reload reads services.json and the configuration again and applies what changed.
var Reload = rpc.Op[struct{}, Changes]{Info: rpc.Info{
	ID: "service.reload", Method: "POST", Path: "/v1/reload", Access: rpc.Admin, From: []string{"control"},
	Repeatable: true, Timeout: 60 * time.Second, Summary: "Read services.json again and apply what changed",
}}
