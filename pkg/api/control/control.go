// Package control declares the operations that the control service answers
// itself: status, audit trail, event feed. It owns no behaviour.
package control

import (
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/build"
	"vpnd/pkg/rpc"
)

// Version is what runs.
type Version = build.Info

// GetVersion tells what runs.
var GetVersion = rpc.Op[struct{}, Version]{Info: rpc.Info{
	ID: "version", Method: "GET", Path: "/v1/version", Access: rpc.View, Summary: "What runs",
}}

// Problem is something that wants attention.
type Problem struct {
	What string `json:"what" doc:"what is wrong"`
	Hint string `json:"hint,omitempty" doc:"what to do"`
}

// Status is one screen of everything.
type Status struct {
	Healthy  bool                 `json:"healthy"`
	Version  string               `json:"version"`
	Time     time.Time            `json:"time"`
	Started  time.Time            `json:"started_at" doc:"when the control service started"`
	Endpoint string               `json:"endpoint" doc:"host that clients connect to"`
	Pin      string               `json:"pin,omitempty" doc:"pin of the client API's certificate"`
	Services []supervisor.Service `json:"services"`
	Lanes    []lanes.Lane         `json:"lanes"`
	Sessions *sessions.Overview   `json:"sessions,omitempty"`
	Users    int                  `json:"users"`
	Problems []Problem            `json:"problems"`
}

// GetStatus gives one screen of everything; what cannot be asked is a problem,
// not an error.
var GetStatus = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "status", Method: "GET", Path: "/v1/status", Access: rpc.View, Summary: "One screen of everything",
}}

// AuditEntry is one change that somebody asked for.
type AuditEntry struct {
	Seq       int64     `json:"seq"`
	Time      time.Time `json:"time"`
	Who       string    `json:"who" doc:"local account"`
	UID       uint32    `json:"uid"`
	PID       int32     `json:"pid"`
	From      string    `json:"from" doc:"program and terminal or SSH peer, where known"`
	Op        string    `json:"op" doc:"operation, such as user.suspend"`
	Target    string    `json:"target,omitempty"`
	Result    string    `json:"result" doc:"pending, ok, or an error code"`
	Message   string    `json:"message,omitempty"`
	RequestID string    `json:"request_id"`
}

// AuditRequest filters and pages the trail, newest first.
type AuditRequest struct {
	Who   string    `query:"who" maxLength:"64"`
	Op    string    `query:"op" maxLength:"64" doc:"operation or its first part, such as user"`
	Since time.Time `query:"since"`
	Limit int       `query:"limit" minimum:"1" maximum:"10000" default:"100"`
	After string    `query:"after" maxLength:"64" doc:"cursor from the page before"`
}

// Audit lists the trail.
var Audit = rpc.Op[AuditRequest, rpc.List[AuditEntry]]{Info: rpc.Info{
	ID: "audit.list", Method: "GET", Path: "/v1/audit", Access: rpc.View, Summary: "List the audit trail",
}}

// EventsRequest filters the feed.
type EventsRequest struct {
	Type   string    `query:"type" maxLength:"64" doc:"type or its first part, such as session"`
	User   string    `query:"user" maxLength:"64"`
	Since  time.Time `query:"since" doc:"begin with what is remembered from then on"`
	Follow bool      `query:"follow" doc:"stay and send new events"`
}

// Events streams what happens. A reader that falls behind by more than 1,000
// events loses the oldest and is told how many.
var Events = rpc.Stream[EventsRequest, events.Event]{Info: rpc.Info{
	ID: "events", Method: "GET", Path: "/v1/events", Access: rpc.View, Summary: "Follow what happens",
}}
