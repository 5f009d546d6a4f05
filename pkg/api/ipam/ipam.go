// Package ipam declares the operations of the service that owns addresses. It
// owns no behaviour.
package ipam

import (
	"net/netip"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// Addresses is a device's place in one lane.
type Addresses struct {
	IPv4 netip.Addr `json:"ipv4"`
	IPv6 netip.Addr `json:"ipv6"`
}

// Lease is what a device holds, from its first connect until it is deleted.
type Lease struct {
	Device    id.Device `json:"device_id"`
	User      id.User   `json:"user_id"`
	VPN       Addresses `json:"vpn"`
	Tor       Addresses `json:"tor"`
	CreatedAt time.Time `json:"created_at"`
}

// AcquireRequest asks for a device's lease.
type AcquireRequest struct {
	Device id.Device `path:"device" minLength:"1" maxLength:"64"`
	Body   struct {
		User id.User `json:"user_id" minLength:"1" maxLength:"64"`
	}
}

// Acquire gives the device's lease, made on first use, always the same after.
// A full pool is exhausted.
var Acquire = rpc.Op[AcquireRequest, Lease]{Info: rpc.Info{
	ID: "ipam.acquire", Method: "PUT", Path: "/v1/ipam/leases/{device}", Access: rpc.Internal, From: []string{"sessions"},
	Quiet: true, Summary: "Lease addresses to a device",
}}

// LeaseRef names a lease by device id.
type LeaseRef struct {
	Device id.Device `path:"device" minLength:"1" maxLength:"64"`
}

// Release gives the addresses back; they rest in quarantine before reuse. A
// lease that is not there is fine.
var Release = rpc.Op[LeaseRef, rpc.None]{Info: rpc.Info{
	ID: "ipam.give_back", Method: "DELETE", Path: "/v1/ipam/leases/{device}", Access: rpc.Internal, From: []string{"sessions"},
	Quiet: true, Summary: "Release a device's addresses",
}}

// ListRequest filters and pages leases, oldest first.
type ListRequest struct {
	User  string `query:"user" maxLength:"64" doc:"only this user id's"`
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"100"`
	After string `query:"after" maxLength:"256" doc:"cursor from the page before"`
}

// Leases lists leases.
var Leases = rpc.Op[ListRequest, rpc.List[Lease]]{Info: rpc.Info{
	ID: "ipam.list", Method: "GET", Path: "/v1/ipam/leases", Access: rpc.View, From: []string{"control", "sessions"}, Summary: "List leases",
}}

// PoolStatus tells how full one pool is.
type PoolStatus struct {
	Lane        string       `json:"lane" enum:"vpn,tor"`
	Family      string       `json:"family" enum:"ipv4,ipv6"`
	Prefix      netip.Prefix `json:"prefix"`
	Gateway     netip.Addr   `json:"gateway"`
	Capacity    uint64       `json:"capacity"`
	Used        uint64       `json:"used"`
	Quarantined uint64       `json:"quarantined" doc:"released, not yet handed out again"`
	Free        uint64       `json:"free"`
}

// StatusReply is the state of all pools.
type StatusReply struct {
	Pools      []PoolStatus `json:"pools"`
	Quarantine int          `json:"quarantine" doc:"seconds an address rests after release"`
}

// Status reports the pools.
var Status = rpc.Op[struct{}, StatusReply]{Info: rpc.Info{
	ID: "ipam.status", Method: "GET", Path: "/v1/ipam", Access: rpc.View, From: []string{"control"}, Summary: "How full the address pools are",
}}
