// Package users declares the operations of the service that owns accounts. It
// owns no behaviour.
package users

import (
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// Status of an account.
type Status string

// The statuses. A deleted account answers not_found everywhere but in history.
const (
	Active    Status = "active"
	Suspended Status = "suspended"
	Deleting  Status = "deleting" // acknowledged as deleted; traces are being removed
)

// User is an account as operators see it.
type User struct {
	ID          id.User    `json:"id"`
	Username    string     `json:"username"`
	Email       string     `json:"email,omitempty"`
	Status      Status     `json:"status" enum:"active,suspended,deleting"`
	StatusSince time.Time  `json:"status_since"`
	DeviceLimit int        `json:"device_limit" doc:"devices that may exist at once, 1 to 100"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	LastLoginAt *time.Time `json:"last_login_at,omitempty"`
	LastSeenAt  *time.Time `json:"last_seen_at,omitempty"`
	Sessions    int64      `json:"sessions" doc:"sessions ended so far"`
	RxBytes     int64      `json:"rx_bytes" doc:"received from the user's devices in ended and running sessions"`
	TxBytes     int64      `json:"tx_bytes" doc:"sent to the user's devices"`
}

// ListRequest filters and pages accounts, in order of username.
type ListRequest struct {
	Status string `query:"status" enum:"active,suspended,deleting" doc:"only these"`
	Search string `query:"search" maxLength:"128" doc:"part of username or e-mail"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	After  string `query:"after" maxLength:"256" doc:"cursor from the page before"`
}

// ListUsers lists accounts.
var ListUsers = rpc.Op[ListRequest, rpc.List[User]]{Info: rpc.Info{
	ID: "user.list", Method: "GET", Path: "/v1/users", Access: rpc.View, Summary: "List users",
}}

// Ref names an account: username, id or unique prefix of an id.
type Ref struct {
	User string `path:"user" minLength:"1" maxLength:"64" doc:"username, id, or unique prefix of an id"`
}

// Get gives one account.
var Get = rpc.Op[Ref, User]{Info: rpc.Info{
	ID: "user.get", Method: "GET", Path: "/v1/users/{user}", Access: rpc.View, Summary: "Show a user",
}}

// CreateRequest makes an account.
type CreateRequest struct {
	Body struct {
		Username    string `json:"username" minLength:"1" maxLength:"32" pattern:"^[a-z0-9][a-z0-9._-]*$" doc:"lower case letters, digits, . _ -"`
		Email       string `json:"email,omitempty" maxLength:"254" doc:"optional, unique"`
		Password    string `json:"password" minLength:"8" maxLength:"1024"`
		DeviceLimit int    `json:"device_limit,omitempty" minimum:"1" maximum:"100" doc:"default 5"`
	}
}

// Create makes an account.
var Create = rpc.Op[CreateRequest, User]{Info: rpc.Info{
	ID: "user.create", Method: "POST", Path: "/v1/users", Access: rpc.Admin, Summary: "Create a user",
}}

// SetRequest changes only what is given.
type SetRequest struct {
	Ref
	Body struct {
		Username    *string `json:"username,omitempty" minLength:"1" maxLength:"32" pattern:"^[a-z0-9][a-z0-9._-]*$"`
		Email       *string `json:"email,omitempty" maxLength:"254" doc:"empty removes it"`
		DeviceLimit *int    `json:"device_limit,omitempty" minimum:"1" maximum:"100"`
	}
}

// Set changes an account.
var Set = rpc.Op[SetRequest, User]{Info: rpc.Info{
	ID: "user.set", Method: "PATCH", Path: "/v1/users/{user}", Access: rpc.Admin, Repeatable: true, Summary: "Change a user",
}}

// PasswordRequest sets a password.
type PasswordRequest struct {
	Ref
	Body struct {
		Password string `json:"password" minLength:"8" maxLength:"1024"`
	}
}

// SetPassword sets a password and ends the user's sign-ins: refresh tokens
// stop working, running sessions go on.
var SetPassword = rpc.Op[PasswordRequest, rpc.None]{Info: rpc.Info{
	ID: "user.passwd", Method: "PUT", Path: "/v1/users/{user}/password", Access: rpc.Admin, Summary: "Set a user's password",
}}

// Suspend refuses the user everything and returns after the peers are gone.
var Suspend = rpc.Op[Ref, User]{Info: rpc.Info{
	ID: "user.suspend", Method: "POST", Path: "/v1/users/{user}/suspend", Access: rpc.Admin, Repeatable: true,
	Timeout: 30 * time.Second, Summary: "Suspend a user; returns after their peers are gone",
}}

// Activate undoes Suspend.
var Activate = rpc.Op[Ref, User]{Info: rpc.Info{
	ID: "user.activate", Method: "POST", Path: "/v1/users/{user}/activate", Access: rpc.Admin, Repeatable: true,
	Summary: "Activate a suspended user",
}}

// Delete removes the account, its devices and leases, and returns after the
// peers are gone.
var Delete = rpc.Op[Ref, rpc.None]{Info: rpc.Info{
	ID: "user.delete", Method: "DELETE", Path: "/v1/users/{user}", Access: rpc.Admin,
	Timeout: 30 * time.Second, Summary: "Delete a user; returns after their peers are gone",
}}

// LookupRequest finds the account that signs in.
type LookupRequest struct {
	Body struct {
		Login string `json:"login" maxLength:"254" doc:"username or e-mail"`
	}
}

// Credentials is what auth needs to judge a sign-in.
type Credentials struct {
	ID           id.User `json:"id"`
	Username     string  `json:"username"`
	Email        string  `json:"email"`
	Status       Status  `json:"status"`
	DeviceLimit  int     `json:"device_limit"`
	PasswordHash string  `json:"password_hash" doc:"Argon2id, PHC string"`
}

// Lookup gives an account with its password hash; only auth may ask.
var Lookup = rpc.Op[LookupRequest, Credentials]{Info: rpc.Info{
	ID: "users.lookup", Method: "POST", Path: "/v1/users-lookup", Access: rpc.Internal, From: []string{"auth"},
	Repeatable: true, Quiet: true, Summary: "Find the account that signs in",
}}

// Account is the standing of an account.
type Account struct {
	ID          id.User `json:"id"`
	Username    string  `json:"username"`
	Email       string  `json:"email"`
	Status      Status  `json:"status"`
	DeviceLimit int     `json:"device_limit"`
}

// Standing tells whether an account exists and is active. Siblings ask before
// every refresh and every connect.
var Standing = rpc.Op[Ref, Account]{Info: rpc.Info{
	ID: "users.standing", Method: "GET", Path: "/v1/users/{user}/standing", Access: rpc.Internal,
	From: []string{"auth", "sessions"}, Summary: "Whether an account is active",
}}

// SeenRequest notes a successful sign-in.
type SeenRequest struct {
	Ref
	Body struct {
		LoginAt time.Time `json:"login_at"`
	}
}

// Seen notes a successful sign-in.
var Seen = rpc.Op[SeenRequest, rpc.None]{Info: rpc.Info{
	ID: "users.seen", Method: "PUT", Path: "/v1/users/{user}/seen", Access: rpc.Internal, From: []string{"auth"},
	Quiet: true, Summary: "Note a sign-in",
}}

// Usage is what one user's sessions added since the report before.
type Usage struct {
	User     id.User   `json:"user_id"`
	RxBytes  int64     `json:"rx_bytes" minimum:"0"`
	TxBytes  int64     `json:"tx_bytes" minimum:"0"`
	Sessions int64     `json:"sessions" minimum:"0" doc:"sessions ended"`
	SeenAt   time.Time `json:"seen_at"`
}

// UsageRequest is one report. Reports are numbered and applied once: one that
// was applied already is answered like a new one.
type UsageRequest struct {
	Body struct {
		Seq   int64   `json:"seq" minimum:"1"`
		Usage []Usage `json:"usage"`
	}
}

// AddUsage adds to the totals.
var AddUsage = rpc.Op[UsageRequest, rpc.None]{Info: rpc.Info{
	ID: "users.usage", Method: "POST", Path: "/v1/users-usage", Access: rpc.Internal, From: []string{"sessions"},
	Repeatable: true, Quiet: true, MaxBody: 16 << 20, Summary: "Add traffic to the totals",
}}
