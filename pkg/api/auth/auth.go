// Package auth declares the operations of the service that signs people in and
// owns their devices and refresh families. It owns no behaviour.
package auth

import (
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// LoginRequest is a sealed sign-in and where it came from.
type LoginRequest struct {
	Body struct {
		client.Sealed
		Remote string `json:"remote" maxLength:"64" doc:"address of the client"`
	}
}

// Login signs a device in.
var Login = rpc.Op[LoginRequest, client.Tokens]{Info: rpc.Info{
	ID: "auth.login", Method: "POST", Path: "/v1/auth/login", Access: rpc.Internal, From: []string{"gateway"},
	Timeout: 60 * time.Second, Summary: "Sign a device in",
}}

// RefreshRequest carries a refresh token and where it came from.
type RefreshRequest struct {
	Body struct {
		RefreshToken string `json:"refresh_token" minLength:"1" maxLength:"256"`
		Remote       string `json:"remote" maxLength:"64"`
	}
}

// Reauth trades a refresh token for a new pair. The call may be repeated under
// the same request id; under another it is a second use of a spent token.
var Reauth = rpc.Op[RefreshRequest, client.Tokens]{Info: rpc.Info{
	ID: "auth.reauth", Method: "POST", Path: "/v1/auth/reauth", Access: rpc.Internal, From: []string{"gateway"},
	Repeatable: true, Summary: "Renew a token pair",
}}

// Logout ends a refresh family and closes the device's session.
var Logout = rpc.Op[RefreshRequest, rpc.None]{Info: rpc.Info{
	ID: "auth.logout", Method: "POST", Path: "/v1/auth/logout", Access: rpc.Internal, From: []string{"gateway"},
	Repeatable: true, Summary: "Sign a device out",
}}

// Device is one WireGuard client of an account.
type Device struct {
	ID         id.Device  `json:"id"`
	User       id.User    `json:"user_id"`
	Username   string     `json:"username"`
	Name       string     `json:"name"`
	OS         string     `json:"os"`
	CreatedAt  time.Time  `json:"created_at"`
	LastSeenAt *time.Time `json:"last_seen_at,omitempty" doc:"last sign-in or renewal"`
	SignedIn   bool       `json:"signed_in" doc:"holds a refresh token that works"`
}

// DeviceListRequest filters and pages devices, in order of username and name.
type DeviceListRequest struct {
	User  string `query:"user" maxLength:"64" doc:"only this user's"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	After string `query:"after" maxLength:"256" doc:"cursor from the page before"`
}

// DeviceList lists devices.
var DeviceList = rpc.Op[DeviceListRequest, rpc.List[Device]]{Info: rpc.Info{
	ID: "device.list", Method: "GET", Path: "/v1/devices", Access: rpc.View, From: []string{"control"}, Summary: "List devices",
}}

// DeviceRef names a device: username/name, id or unique prefix of an id.
type DeviceRef struct {
	Device string `path:"device" minLength:"1" maxLength:"128" doc:"username/name, id, or unique prefix of an id"`
}

// DeviceGet gives one device.
var DeviceGet = rpc.Op[DeviceRef, Device]{Info: rpc.Info{
	ID: "device.get", Method: "GET", Path: "/v1/devices/{device}", Access: rpc.View, From: []string{"control"}, Summary: "Show a device",
}}

// DeviceDelete forgets a device: session closed, addresses released, tokens
// void. It returns after the peer is gone.
var DeviceDelete = rpc.Op[DeviceRef, rpc.None]{Info: rpc.Info{
	ID: "device.delete", Method: "DELETE", Path: "/v1/devices/{device}", Access: rpc.Admin, From: []string{"control"},
	Timeout: 30 * time.Second, Summary: "Delete a device; returns after its peer is gone",
}}

// CheckRequest asks whether a device may connect.
type CheckRequest struct {
	Device id.Device `path:"device" minLength:"1" maxLength:"64"`
	User   id.User   `query:"user" maxLength:"64" required:"true"`
}

// DeviceCheck answers for an existing device of that user, whose sign-in has
// not been revoked; otherwise it is unauthenticated with reason "signed_out"
// or "device_deleted".
var DeviceCheck = rpc.Op[CheckRequest, Device]{Info: rpc.Info{
	ID: "auth.device_check", Method: "GET", Path: "/v1/auth/devices/{device}", Access: rpc.Internal, From: []string{"sessions"},
	Summary: "Whether a device may connect",
}}

// UserRef names a user by id.
type UserRef struct {
	User id.User `path:"user" minLength:"1" maxLength:"64"`
}

// ForgetUser removes everything auth knows of a user.
var ForgetUser = rpc.Op[UserRef, rpc.None]{Info: rpc.Info{
	ID: "auth.forget_user", Method: "DELETE", Path: "/v1/auth/users/{user}", Access: rpc.Internal, From: []string{"users"},
	Summary: "Forget a deleted user",
}}

// RevokeUser voids all refresh tokens of a user.
var RevokeUser = rpc.Op[UserRef, rpc.None]{Info: rpc.Info{
	ID: "auth.revoke_user", Method: "DELETE", Path: "/v1/auth/users/{user}/tokens", Access: rpc.Internal, From: []string{"users"},
	Summary: "Void a user's refresh tokens",
}}
