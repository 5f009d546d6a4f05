// Package client declares the client API: what the internet-facing gateway
// offers to user devices over TLS on port 4605. Other people's clients are
// written against it, so it only ever grows. It owns no behaviour.
package client

import (
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/rpc"
)

// LoginInfo is the HPKE info string of a sealed sign-in (base mode, empty AAD).
const LoginInfo = "vpnd login v1"

// LoginWindow is how far issued_at may be from the server's clock, either way.
const LoginWindow = 120 * time.Second

// Health is the answer of a healthy gateway.
type Health struct {
	Status  string `json:"status" enum:"ok"`
	Version string `json:"version"`
}

// GetHealth tells whether sign-ins can work; unavailable while keys are not ready.
var GetHealth = rpc.Op[struct{}, Health]{Info: rpc.Info{
	ID: "health", Method: "GET", Path: "/health", Access: rpc.Public, Summary: "Whether the server is ready",
}}

// GetPubkey gives the keys that sign-ins are sealed to, best first.
var GetPubkey = rpc.Op[struct{}, keys.LoginKeys]{Info: rpc.Info{
	ID: "auth.pubkey", Method: "GET", Path: "/auth/pubkey", Access: rpc.Public, Summary: "Keys to seal a sign-in to",
}}

// Sealed is a Login, encrypted with HPKE to one of the published keys.
type Sealed struct {
	KID        string `json:"kid" minLength:"1" maxLength:"128"`
	Enc        string `json:"enc" minLength:"1" maxLength:"4096" doc:"encapsulated key, base64"`
	Ciphertext string `json:"ciphertext" minLength:"1" maxLength:"16384" doc:"base64"`
}

// Login is the plaintext of Sealed.
type Login struct {
	Login    string      `json:"login" doc:"username or e-mail"`
	Password string      `json:"password"`
	Device   LoginDevice `json:"device"`
	IssuedAt time.Time   `json:"issued_at" doc:"RFC 3339, within 120 s of the server's clock"`
	Nonce    string      `json:"nonce" doc:"16 random bytes, base64; never used before"`
}

// LoginDevice says which device signs in. Without an id it is a new one.
type LoginDevice struct {
	ID   id.Device `json:"id,omitempty"`
	Name string    `json:"name"`
	OS   string    `json:"os"`
}

// LoginRequest is a sealed sign-in.
type LoginRequest struct{ Body Sealed }

// TokenUser is who signed in.
type TokenUser struct {
	ID       id.User `json:"id"`
	Username string  `json:"username"`
	Email    string  `json:"email"`
}

// Tokens is what a sign-in or a renewal gives.
type Tokens struct {
	AccessToken      string    `json:"access_token"`
	TokenType        string    `json:"token_type" enum:"Bearer"`
	ExpiresIn        int       `json:"expires_in" doc:"seconds"`
	RefreshToken     string    `json:"refresh_token"`
	RefreshExpiresIn int       `json:"refresh_expires_in" doc:"seconds"`
	DeviceID         id.Device `json:"device_id"`
	User             TokenUser `json:"user"`
}

// PostLogin signs in.
var PostLogin = rpc.Op[LoginRequest, Tokens]{Info: rpc.Info{
	ID: "auth.login", Method: "POST", Path: "/auth/login", Access: rpc.Public, Timeout: 60 * time.Second,
	Summary: "Sign in with a sealed password",
}}

// RefreshRequest carries a refresh token.
type RefreshRequest struct {
	Body struct {
		RefreshToken string `json:"refresh_token" minLength:"1" maxLength:"256"`
	}
}

// PostReauth trades a refresh token for a new pair. A token works once; using
// it again ends the whole family and the device's session.
var PostReauth = rpc.Op[RefreshRequest, Tokens]{Info: rpc.Info{
	ID: "auth.reauth", Method: "POST", Path: "/auth/reauth", Access: rpc.Public, Summary: "Renew the token pair",
}}

// PostLogout closes the session and voids the refresh token; the device stays.
var PostLogout = rpc.Op[RefreshRequest, rpc.None]{Info: rpc.Info{
	ID: "auth.logout", Method: "POST", Path: "/auth/logout", Access: rpc.Public, Repeatable: true, Summary: "Sign out",
}}

// InitiateRequest asks for a place in both lanes.
type InitiateRequest struct {
	Body struct {
		PublicKey string `json:"public_key" minLength:"1" maxLength:"64" doc:"WireGuard public key, base64"`
	}
}

// LaneConfig is what a device needs for one lane.
type LaneConfig struct {
	Endpoint            string   `json:"endpoint" doc:"host:port"`
	ServerPublicKey     string   `json:"server_public_key"`
	PresharedKey        string   `json:"preshared_key"`
	Addresses           []string `json:"addresses" doc:"IPv4/32 and IPv6/128"`
	AllowedIPs          []string `json:"allowed_ips"`
	DNS                 []string `json:"dns"`
	MTU                 int      `json:"mtu"`
	PersistentKeepalive int      `json:"persistent_keepalive" doc:"seconds"`
	ControlURL          string   `json:"control_url" doc:"this API, reachable inside the lane"`
}

// Lanes holds both lanes' configurations.
type Lanes struct {
	VPN LaneConfig `json:"vpn"`
	Tor LaneConfig `json:"tor"`
}

// Initiated is an open session.
type Initiated struct {
	SessionID    id.Session `json:"session_id"`
	Lanes        Lanes      `json:"lanes"`
	HeartbeatTTL int        `json:"heartbeat_ttl" doc:"seconds; beat about twice in it"`
	HardTTL      int        `json:"hard_ttl" doc:"seconds until the session must be opened anew"`
}

// PostInitiate opens the device's session. The same key again gives the same
// session, another key replaces the old peer.
var PostInitiate = rpc.Op[InitiateRequest, Initiated]{Info: rpc.Info{
	ID: "vpn.initiate", Method: "POST", Path: "/vpn/initiate", Access: rpc.Bearer, Repeatable: true,
	Summary: "Open the device's session in both lanes",
}}

// Beat is the answer to a heartbeat.
type Beat struct {
	State        string `json:"state" enum:"online"`
	Recovered    bool   `json:"recovered" doc:"the session was offline until now"`
	HeartbeatTTL int    `json:"heartbeat_ttl" doc:"seconds"`
}

// PostHeartbeat keeps the session online.
var PostHeartbeat = rpc.Op[struct{}, Beat]{Info: rpc.Info{
	ID: "session.heartbeat", Method: "POST", Path: "/session/heartbeat", Access: rpc.Bearer, Repeatable: true,
	Summary: "Keep the session online",
}}

// PostClose closes the device's session; closing a closed one is fine.
var PostClose = rpc.Op[struct{}, rpc.None]{Info: rpc.Info{
	ID: "session.close", Method: "POST", Path: "/session/close", Access: rpc.Bearer, Repeatable: true,
	Summary: "Close the device's session",
}}

// Identity is whom a token speaks for.
type Identity struct {
	UserID   id.User   `json:"user_id"`
	DeviceID id.Device `json:"device_id"`
}

// PostVerify tells whom the token speaks for.
var PostVerify = rpc.Op[struct{}, Identity]{Info: rpc.Info{
	ID: "vpn.verify_id", Method: "POST", Path: "/vpn/verify/id", Access: rpc.Bearer, Repeatable: true,
	Summary: "Whom the token speaks for",
}}

// LaneState is how one lane is, for the device that asks.
type LaneState struct {
	State       string   `json:"state" enum:"up,maintenance,blocked,down,failed,unknown" doc:"unknown: the server cannot tell now"`
	Reason      string   `json:"reason,omitempty"`
	Exits       []string `json:"exits,omitempty" doc:"lane tor: countries or relays chosen for this user"`
	Strict      bool     `json:"strict,omitempty" doc:"lane tor: nothing else will do"`
	ExitCountry string   `json:"exit_country,omitempty" doc:"lane tor: where this user's latest circuit leaves Tor; two letters"`
}

// LaneStates holds both.
type LaneStates struct {
	VPN LaneState `json:"vpn"`
	Tor LaneState `json:"tor"`
}

// GetLaneStates tells how both lanes are.
var GetLaneStates = rpc.Op[struct{}, LaneStates]{Info: rpc.Info{
	ID: "session.lanes", Method: "GET", Path: "/session/lanes", Access: rpc.Bearer, Summary: "How the lanes are",
}}
