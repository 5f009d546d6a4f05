// Package events declares the feed that every service offers to control, and
// the event that travels on it. It owns no behaviour.
package events

import (
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// Event is something that happened. Types are noun.verb in the past tense:
// session.opened, session.closed, user.suspended, auth.refused, service.ready.
type Event struct {
	ID      id.Event          `json:"id"`
	Time    time.Time         `json:"time" doc:"RFC 3339, UTC"`
	Seq     uint64            `json:"seq" doc:"rises by one with every event of one run of one service"`
	Service string            `json:"service" doc:"the service that says so"`
	Type    string            `json:"type" doc:"noun.verb, such as session.opened"`
	User    string            `json:"user,omitempty" doc:"username"`
	Device  string            `json:"device,omitempty" doc:"device name"`
	Session id.Session        `json:"session,omitempty"`
	Reason  string            `json:"reason,omitempty"`
	Message string            `json:"message,omitempty" doc:"one sentence for people"`
	Data    map[string]string `json:"data,omitempty"`
	Missed  uint64            `json:"missed,omitempty" doc:"events dropped just before this one because the reader was slow"`
}

// FeedRequest asks for events newer than Since; 0 asks for new ones only.
type FeedRequest struct {
	Since string `query:"since" maxLength:"64" doc:"id of the last event seen; empty for new events only"`
}

// Feed is offered by every service, read by control.
var Feed = rpc.Stream[FeedRequest, Event]{Info: rpc.Info{
	ID: "service.feed", Method: "GET", Path: "/v1/feed", Access: rpc.Internal, From: []string{"control"},
	Summary: "Follow what happens in this service",
}}
