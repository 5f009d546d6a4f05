// Package config reads vpnd's one configuration file. It owns the TOML form,
// the defaults and the checks that need nothing but the file; what needs the
// host (does a prefix overlap a route?) is checked by the service concerned.
// A Config is a plain value and holds no secrets.
package config

import (
	"net/netip"
	"time"
)

// Config is the whole file. Every field has a default, see Default.
type Config struct {
	Server   Server   `toml:"server" json:"server"`
	Paths    Paths    `toml:"paths" json:"paths"`
	Users    Users    `toml:"users" json:"users"`
	Gateway  Gateway  `toml:"gateway" json:"gateway"`
	Auth     Auth     `toml:"auth" json:"auth"`
	Sessions Sessions `toml:"sessions" json:"sessions"`
	IPAM     IPAM     `toml:"ipam" json:"ipam"`
	Lanes    Lanes    `toml:"lanes" json:"lanes"`
	Tor      Tor      `toml:"tor" json:"tor"`
	LeakTest LeakTest `toml:"leaktest" json:"leaktest"`
	Control  Control  `toml:"control" json:"control"`
	Log      Log      `toml:"log" json:"log"`
	Logs     Logs     `toml:"logs" json:"logs"`
}

// Server is how clients see this machine.
type Server struct {
	Endpoint string `toml:"endpoint" json:"endpoint" comment:"host name or address that clients connect to; empty: the address of the default route"`
}

// Paths are the folders vpnd keeps things in.
type Paths struct {
	State string `toml:"state" json:"state" comment:"databases and keys"`
	Run   string `toml:"run" json:"run" comment:"sockets"`
	Log   string `toml:"log" json:"log" comment:"log files"`
}

// Users says which system accounts the services run as.
type Users struct {
	Mode string `toml:"mode" json:"mode" comment:"system: accounts vpnd-NAME, made by 'vpnd init'; dynamic: numeric ids from base, nothing is added to the host"`
	Base uint32 `toml:"base" json:"base" comment:"first numeric id of dynamic mode"`
}

// Gateway is the client API.
type Gateway struct {
	Listen         []string `toml:"listen" json:"listen" comment:"TCP addresses of the client API; the lanes' gateway addresses must be covered"`
	MaxConnections int      `toml:"max_connections" json:"max_connections" comment:"connections held at once; the longest idle one makes room for a new one"`
}

// Auth is sign-in.
type Auth struct {
	AccessTTL  Duration `toml:"access_ttl" json:"access_ttl" comment:"life of an access token"`
	RefreshTTL Duration `toml:"refresh_ttl" json:"refresh_ttl" comment:"life of a refresh token that is not used"`
	Argon2     Argon2   `toml:"argon2" json:"argon2"`
	Guard      Guard    `toml:"guard" json:"guard"`
}

// Argon2 are the Argon2id parameters of new password hashes.
type Argon2 struct {
	MemoryKiB uint32 `toml:"memory_kib" json:"memory_kib"`
	Time      uint32 `toml:"time" json:"time"`
	Threads   uint8  `toml:"threads" json:"threads"`
}

// Guard slows down guessing. Each bucket holds that many failures and refills
// over Window.
type Guard struct {
	PerAccount int      `toml:"per_account" json:"per_account" comment:"failed sign-ins to one account"`
	PerAddress int      `toml:"per_address" json:"per_address" comment:"failed sign-ins from one address (IPv6: one /64)"`
	Global     int      `toml:"global" json:"global" comment:"failed sign-ins in all"`
	Window     Duration `toml:"window" json:"window" comment:"time in which they count"`
}

// Sessions is the life of a session.
type Sessions struct {
	HeartbeatTTL Duration `toml:"heartbeat_ttl" json:"heartbeat_ttl" comment:"silence after which a session is offline; it keeps its peer and addresses"`
	HardTTL      Duration `toml:"hard_ttl" json:"hard_ttl" comment:"age at which a session is closed"`
	History      Duration `toml:"history" json:"history" comment:"how long closed sessions are remembered"`
}

// IPAM is how addresses are handed out.
type IPAM struct {
	Quarantine Duration `toml:"quarantine" json:"quarantine" comment:"rest of an address between two devices"`
}

// Lanes are the two lanes.
type Lanes struct {
	WireGuard    string   `toml:"wireguard" json:"wireguard" comment:"auto, kernel or userspace"`
	BlockedPorts []uint16 `toml:"blocked_ports" json:"blocked_ports" comment:"TCP ports that devices may not reach on the internet"`
	PeerToPeer   bool     `toml:"peer_to_peer" json:"peer_to_peer" comment:"devices may reach each other"`
	Keepalive    Duration `toml:"keepalive" json:"keepalive" comment:"what clients are told to use; 0 turns it off"`
	VPN          Lane     `toml:"vpn" json:"vpn"`
	Tor          Lane     `toml:"tor" json:"tor"`
}

// Lane is one WireGuard interface.
type Lane struct {
	Interface string       `toml:"interface" json:"interface"`
	Port      uint16       `toml:"port" json:"port" comment:"UDP"`
	IPv4      netip.Prefix `toml:"ipv4" json:"ipv4" comment:"the first address is the gateway's"`
	IPv6      netip.Prefix `toml:"ipv6" json:"ipv6"`
	MTU       int          `toml:"mtu" json:"mtu"`
	DNS       []netip.Addr `toml:"dns" json:"dns" comment:"resolvers that clients are told to use; empty: the lane's gateway"`
}

// Tor is the tor process of lane tor.
type Tor struct {
	Binary      string       `toml:"binary" json:"binary" comment:"path of tor, or its name on PATH"`
	TransPort   uint16       `toml:"trans_port" json:"trans_port" comment:"TCP, on lane tor's gateway addresses"`
	DNSPort     uint16       `toml:"dns_port" json:"dns_port" comment:"UDP by tor and TCP by vpnd, on lane tor's gateway addresses"`
	PagePort    uint16       `toml:"page_port" json:"page_port" comment:"TCP, the maintenance page"`
	CheckURL    string       `toml:"check_url" json:"check_url" comment:"page that answers with the address it saw, as text or JSON; for 'vpnctl tor check'"`
	ProbeEvery  Duration     `toml:"probe_every" json:"probe_every" comment:"how often a circuit is built as a test"`
	VirtualIPv4 netip.Prefix `toml:"virtual_ipv4" json:"virtual_ipv4" comment:"addresses that stand for onion names"`
	VirtualIPv6 netip.Prefix `toml:"virtual_ipv6" json:"virtual_ipv6"`
	ExtraTorrc  []string     `toml:"extra_torrc" json:"extra_torrc" comment:"lines added to torrc as they are; ports, folders and the control socket cannot be changed this way"`
}

// LeakTest is the device of vpnd's own that tries to leak.
type LeakTest struct {
	Every Duration `toml:"every" json:"every" comment:"how often it runs by itself; 0 turns that off"`
	Block bool     `toml:"block" json:"block" comment:"packets that leak from lane tor take the lane down until an operator brings it up; repaired rules alone do not"`
}

// Control is the local admin API.
type Control struct {
	AdminGroup string `toml:"admin_group" json:"admin_group" comment:"members may change things; root always may"`
	ViewGroup  string `toml:"view_group" json:"view_group" comment:"members may look"`
}

// Log is what services write.
type Log struct {
	Level   string `toml:"level" json:"level" comment:"debug, info, warn or error"`
	MaxSize int    `toml:"max_size_mib" json:"max_size_mib" comment:"size at which a file is rotated"`
	Keep    int    `toml:"keep" json:"keep" comment:"rotated files kept"`
}

// Logs is what the log service takes in and keeps.
type Logs struct {
	Dirs      []string `toml:"dirs" json:"dirs" comment:"folders whose log files are taken in, with everything below them; empty: paths.log"`
	MaxAge    Duration `toml:"max_age" json:"max_age" comment:"age at which a day of lines is removed; 0 keeps them"`
	MaxSize   int      `toml:"max_size_mib" json:"max_size_mib" comment:"size of all kept lines at which the oldest day is removed; 0 is no limit"`
	SlowQuery Duration `toml:"slow_query" json:"slow_query" comment:"a query that takes longer is counted and logged"`
	QueryTime Duration `toml:"query_time" json:"query_time" comment:"a query that takes longer is ended; exports and follows are not queries"`
}

// Duration is a time.Duration written like "15m" or "36h".
type Duration time.Duration

// D is the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Seconds is the duration in whole seconds.
func (d Duration) Seconds() int { return int(time.Duration(d) / time.Second) }

// MarshalText writes "15m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads, and days as "7d".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := parseDuration(string(b))
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// Default is the configuration without a file.
func Default() Config {
	return Config{
		Paths:   Paths{State: "/var/lib/vpnd", Run: "/run/vpnd", Log: "/var/log/vpnd"},
		Users:   Users{Mode: "system", Base: 1_900_000_000},
		Gateway: Gateway{Listen: []string{"[::]:4605"}, MaxConnections: 4096},
		Auth: Auth{
			AccessTTL:  Duration(15 * time.Minute),
			RefreshTTL: Duration(30 * 24 * time.Hour),
			Argon2:     Argon2{MemoryKiB: 64 << 10, Time: 3, Threads: 4}, // RFC 9106, second recommended option
			Guard:      Guard{PerAccount: 10, PerAddress: 30, Global: 600, Window: Duration(15 * time.Minute)},
		},
		Sessions: Sessions{
			HeartbeatTTL: Duration(90 * time.Second),
			HardTTL:      Duration(15 * 24 * time.Hour),
			History:      Duration(90 * 24 * time.Hour),
		},
		IPAM: IPAM{Quarantine: Duration(10 * time.Minute)},
		Lanes: Lanes{
			WireGuard:    "auto",
			BlockedPorts: []uint16{25},
			Keepalive:    Duration(25 * time.Second),
			VPN: Lane{
				Interface: "wg0", Port: 51820, MTU: 1420,
				IPv4: netip.MustParsePrefix("10.8.0.0/16"), IPv6: netip.MustParsePrefix("fd76:706e:6408::/64"),
				DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe")},
			},
			Tor: Lane{
				Interface: "wg1", Port: 51821, MTU: 1420,
				IPv4: netip.MustParsePrefix("10.9.0.0/16"), IPv6: netip.MustParsePrefix("fd76:706e:6409::/64"),
			},
		},
		Tor: Tor{
			Binary: "tor", TransPort: 9040, DNSPort: 9053, PagePort: 9041,
			CheckURL: "https://check.torproject.org/api/ip", ProbeEvery: Duration(30 * time.Second),
			VirtualIPv4: netip.MustParsePrefix("10.192.0.0/10"), VirtualIPv6: netip.MustParsePrefix("fd76:706e:640a::/48"),
		},
		Control: Control{AdminGroup: "vpnd-admin", ViewGroup: "vpnd-view"},
		Log:     Log{Level: "info", MaxSize: 10, Keep: 5},
		Logs: Logs{
			MaxAge: Duration(30 * 24 * time.Hour), MaxSize: 4096,
			SlowQuery: Duration(500 * time.Millisecond), QueryTime: Duration(30 * time.Second),
		},
	}
}
