// Package lanes declares the operations of the service that owns the WireGuard
// interfaces and the nftables table. It owns no behaviour.
package lanes

import (
	"net/netip"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// Name is a lane.
type Name string

// The lanes.
const (
	VPN Name = "vpn" // to the internet
	Tor Name = "tor" // through Tor or nowhere
)

// Peer is a device as both interfaces know it.
type Peer struct {
	Device       id.Device    `json:"device_id"`
	PublicKey    string       `json:"public_key" doc:"base64"`
	PresharedKey string       `json:"preshared_key" doc:"base64"`
	VPN          []netip.Addr `json:"vpn" doc:"addresses in lane vpn"`
	Tor          []netip.Addr `json:"tor" doc:"addresses in lane tor"`
}

// Applied answers a change. Epoch changes when lanes has lost what it was told
// and wants a Sync.
type Applied struct {
	Epoch string `json:"epoch"`
}

// PutRequest adds or replaces a device's peer.
type PutRequest struct {
	Body Peer
}

// Put programs a device's peer on both interfaces, replacing the device's
// former key. It returns when both have it.
var Put = rpc.Op[PutRequest, Applied]{Info: rpc.Info{
	ID: "lanes.put", Method: "PUT", Path: "/v1/lanes/peers", Access: rpc.Internal, From: []string{"sessions"},
	Quiet: true, Summary: "Add or replace a peer",
}}

// Removal names a peer by its key: lanes that has just started knows keys, but
// not yet whose they are.
type Removal struct {
	Device    id.Device `json:"device_id"`
	PublicKey string    `json:"public_key"`
}

// RemoveRequest names the peers to remove.
type RemoveRequest struct {
	Body struct {
		Peers []Removal `json:"peers" maxItems:"100000"`
	}
}

// Counters are cumulative since the peer was added. Rx is what the device sent.
type Counters struct {
	RxBytes int64 `json:"rx_bytes"`
	TxBytes int64 `json:"tx_bytes"`
}

// Removed answers a Remove with the last counters known of each peer.
type Removed struct {
	Epoch string      `json:"epoch"`
	Last  []PeerStats `json:"last"`
}

// Remove takes peers off both interfaces and returns when they are gone. What
// is not there is fine.
var Remove = rpc.Op[RemoveRequest, Removed]{Info: rpc.Info{
	ID: "lanes.remove", Method: "POST", Path: "/v1/lanes/peers/remove", Access: rpc.Internal, From: []string{"sessions"},
	Repeatable: true, Quiet: true, MaxBody: 16 << 20, Timeout: 30 * time.Second, Summary: "Remove peers",
}}

// SyncRequest is the whole desired state.
type SyncRequest struct {
	Body struct {
		Peers []Peer `json:"peers"`
	}
}

// Synced tells what had to be changed.
type Synced struct {
	Epoch   string `json:"epoch"`
	Added   int    `json:"added"`
	Changed int    `json:"changed"`
	Removed int    `json:"removed"`
}

// Sync makes the interfaces hold exactly these peers.
var Sync = rpc.Op[SyncRequest, Synced]{Info: rpc.Info{
	ID: "lanes.sync", Method: "POST", Path: "/v1/lanes/sync", Access: rpc.Internal, From: []string{"sessions"},
	Repeatable: true, Quiet: true, MaxBody: 64 << 20, Timeout: 2 * time.Minute, Summary: "Set all peers",
}}

// PeerStats is what one device did.
type PeerStats struct {
	Device        id.Device  `json:"device_id"`
	VPN           Counters   `json:"vpn"`
	Tor           Counters   `json:"tor"`
	LastHandshake *time.Time `json:"last_handshake,omitempty" doc:"the later of both lanes"`
	HandshakeLane Name       `json:"handshake_lane,omitempty"`
	Endpoint      string     `json:"endpoint,omitempty" doc:"where the device was last heard from, in the lane of the last handshake"`
}

// StatsReply is what all peers did.
type StatsReply struct {
	Epoch  string      `json:"epoch"`
	Synced bool        `json:"synced" doc:"false until a Sync came since start"`
	Peers  []PeerStats `json:"peers"`
}

// Stats reads all counters.
var Stats = rpc.Op[struct{}, StatsReply]{Info: rpc.Info{
	ID: "lanes.stats", Method: "GET", Path: "/v1/lanes/stats", Access: rpc.Internal, From: []string{"sessions"},
	Summary: "Counters and handshakes of all peers",
}}

// EpochReply tells whether lanes still knows what it was told.
type EpochReply struct {
	Epoch  string `json:"epoch"`
	Synced bool   `json:"synced"`
}

// Epoch is the cheap question between Stats.
var Epoch = rpc.Op[struct{}, EpochReply]{Info: rpc.Info{
	ID: "lanes.epoch", Method: "GET", Path: "/v1/lanes/epoch", Access: rpc.Internal, From: []string{"sessions"},
	Summary: "Whether lanes needs a sync",
}}

// Lane is one lane as it is.
type Lane struct {
	Name      Name         `json:"name"`
	State     string       `json:"state" enum:"up,maintenance,blocked,down,failed" doc:"blocked: peers connect, nothing passes; maintenance: besides, a page says why"`
	Reason    string       `json:"reason,omitempty"`
	Since     time.Time    `json:"since"`
	Interface string       `json:"interface"`
	Backend   string       `json:"backend" enum:"kernel,userspace,none"`
	Port      int          `json:"port" doc:"UDP"`
	PublicKey string       `json:"public_key"`
	IPv4      netip.Prefix `json:"ipv4" doc:"the gateway's address and the lane's prefix"`
	IPv6      netip.Prefix `json:"ipv6"`
	MTU       int          `json:"mtu"`
	DNS       []netip.Addr `json:"dns"`
	Peers     int          `json:"peers"`
}

// List gives both lanes.
var List = rpc.Op[struct{}, rpc.List[Lane]]{Info: rpc.Info{
	ID: "lane.list", Method: "GET", Path: "/v1/lanes", Access: rpc.View, From: []string{"control", "sessions"}, Summary: "List lanes",
}}

// TorState is where packets of lane tor go.
type TorState string

// The states of lane tor.
const (
	TorUp          TorState = "up"
	TorMaintenance TorState = "maintenance"
	TorBlocked     TorState = "blocked"
)

// TorAsk is what the tor service wants of the lane.
type TorAsk struct {
	Body struct {
		State  TorState `json:"state" enum:"up,maintenance,blocked"`
		Reason string   `json:"reason,omitempty" maxLength:"500" doc:"why it is not up"`
		Lease  int      `json:"lease_seconds" minimum:"1" maximum:"60" doc:"after this long without another ask the lane is blocked"`
	}
}

// TorAnswer is what holds now.
type TorAnswer struct {
	State    TorState     `json:"state"`
	Since    time.Time    `json:"since"`
	Gateways []netip.Addr `json:"gateways" doc:"the lane's own addresses once the interface has them; empty before"`
	Canary   []netip.Addr `json:"canary" doc:"the addresses of the leak test's device"`
}

// SetTor sets lane tor's state for the length of a lease, and returns when the
// rules hold.
var SetTor = rpc.Op[TorAsk, TorAnswer]{Info: rpc.Info{
	ID: "lanes.tor.set", Method: "PUT", Path: "/v1/lanes/tor/state", Access: rpc.Internal, From: []string{"tor"},
	Quiet: true, Summary: "Set lane tor's state",
}}

// SwitchRequest switches lane vpn on or off.
type SwitchRequest struct {
	Body struct {
		Up bool `json:"up"`
	}
}

// Switch brings lane vpn up or down; it stays so over restarts. Lane tor has
// its own: see tor.set.
var Switch = rpc.Op[SwitchRequest, Lane]{Info: rpc.Info{
	ID: "lane.set", Method: "PUT", Path: "/v1/lanes/vpn/state", Access: rpc.Admin, From: []string{"control"}, Summary: "Bring lane vpn up or down",
}}

// CanaryRequest puts the leak test's device on both interfaces.
type CanaryRequest struct {
	Body struct {
		PublicKey string `json:"public_key" doc:"base64; empty takes the device away"`
	}
}

// CanaryCounts are packets of the canary since lanes started, and what was put
// right of the rules.
type CanaryCounts struct {
	Left     map[Name]uint64       `json:"left" doc:"left the host by an interface that is not a lane's; of lane vpn only with an untranslated address"`
	Reached  map[Name]uint64       `json:"reached" doc:"let through to a service of the host other than those a device may reach"`
	Repairs  uint64                `json:"repairs" doc:"times somebody's change of the rules was put right"`
	Repaired string                `json:"repaired,omitempty" doc:"the last change that was put right"`
	Lanes    []Lane                `json:"lanes"`
	Addrs    map[Name][]netip.Addr `json:"addresses" doc:"the canary's own addresses"`
}

// PutCanary gives the leak test's device a peer, or takes it away.
var PutCanary = rpc.Op[CanaryRequest, CanaryCounts]{Info: rpc.Info{
	ID: "lanes.canary.put", Method: "PUT", Path: "/v1/lanes/canary", Access: rpc.Internal, From: []string{"canary"}, Quiet: true, Summary: "Set the leak test's peer",
}}

// GetCanary reads the counters. It reads the kernel, not a cache.
var GetCanary = rpc.Op[struct{}, CanaryCounts]{Info: rpc.Info{
	ID: "lanes.canary.get", Method: "GET", Path: "/v1/lanes/canary", Access: rpc.Internal, From: []string{"canary"}, Summary: "Count the leak test's packets",
}}
