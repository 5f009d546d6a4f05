package daemon

import (
	"net/netip"

	"vpnd/pkg/config"
	"vpnd/pkg/sandbox"
	"vpnd/pkg/service"
	"vpnd/pkg/services/auth"
	"vpnd/pkg/services/canary"
	"vpnd/pkg/services/control"
	"vpnd/pkg/services/gateway"
	"vpnd/pkg/services/ipam"
	"vpnd/pkg/services/keys"
	"vpnd/pkg/services/lanes"
	"vpnd/pkg/services/logs"
	"vpnd/pkg/services/sessions"
	"vpnd/pkg/services/tor"
	"vpnd/pkg/services/users"
)

// supervisorName is the supervisor among the siblings.
const supervisorName = "supervisor"

// logReader is the service that may read what the others write into their log
// folders.
const logReader = "logs"

// entry is one service of vpnd: the table that DESIGN speaks of, as code.
type entry struct {
	name   string
	id     uint32   // offset of its uid in dynamic mode; never reused
	calls  []string // whom it may call; who may call it follows from this
	caps   []string
	keeps  sandbox.Policy // what its sandbox leaves it; the zero value is the strictest
	define func() service.Definition

	// reads picks the parts of the configuration that the service goes by. It
	// is told no others, and restarted by a reload exactly when they changed.
	reads func(config.Config) config.Config

	// listen gives further listeners that the supervisor opens for it.
	listen func(config.Config) []string

	everyone bool // its socket is for people, who are judged by the service
}

// table lists the services: callers before those they call, the order of
// status screens and of stopping.
func table() []entry {
	return []entry{
		{name: "control", id: 1, define: control.Definition, everyone: true,
			calls: []string{supervisorName, "keys", "users", "auth", "ipam", "sessions", "lanes", "tor", "canary", "gateway", "logs"},
			reads: func(c config.Config) config.Config { return config.Config{Control: c.Control, Server: c.Server} }},
		{name: "gateway", id: 2, define: gateway.Definition,
			calls: []string{"keys", "auth", "sessions"},
			reads: func(c config.Config) config.Config { return config.Config{Gateway: c.Gateway} },
			listen: func(c config.Config) []string {
				out := make([]string, len(c.Gateway.Listen))
				for i, l := range c.Gateway.Listen {
					out[i] = "tcp://" + l
				}
				return out
			}},
		{name: "auth", id: 4, define: auth.Definition,
			calls: []string{"keys", "users", "sessions"},
			reads: func(c config.Config) config.Config { return config.Config{Auth: c.Auth} }},
		{name: "users", id: 5, define: users.Definition,
			calls: []string{"sessions", "auth"},
			reads: func(c config.Config) config.Config { return config.Config{Auth: config.Auth{Argon2: c.Auth.Argon2}} }},
		{name: "sessions", id: 7, define: sessions.Definition,
			calls: []string{"users", "auth", "ipam", "lanes", "tor"},
			reads: func(c config.Config) config.Config {
				return config.Config{
					Sessions: c.Sessions, Server: c.Server, Gateway: config.Gateway{Listen: c.Gateway.Listen},
					Lanes: config.Lanes{Keepalive: c.Lanes.Keepalive, VPN: c.Lanes.VPN, Tor: c.Lanes.Tor},
				}
			}},
		{name: "ipam", id: 6, define: ipam.Definition,
			reads: func(c config.Config) config.Config {
				return config.Config{IPAM: c.IPAM, Lanes: config.Lanes{VPN: prefixes(c.Lanes.VPN), Tor: prefixes(c.Lanes.Tor)}}
			}},
		{name: "canary", id: 10, define: canary.Definition,
			calls: []string{"lanes", "tor"},
			reads: func(c config.Config) config.Config {
				return config.Config{LeakTest: c.LeakTest, Tor: ports(c.Tor)}
			}},
		{name: "tor", id: 9, define: tor.Definition,
			keeps: sandbox.Policy{Exec: true}, // tor is a process of its own
			calls: []string{"lanes", "sessions", "users"},
			reads: func(c config.Config) config.Config {
				return config.Config{Tor: c.Tor, Lanes: config.Lanes{Tor: prefixes(c.Lanes.Tor)}}
			},
			listen: func(c config.Config) []string {
				gateway4, gateway6 := c.Lanes.Tor.IPv4.Addr().Next(), c.Lanes.Tor.IPv6.Addr().Next()
				var out []string
				for _, port := range []uint16{c.Tor.PagePort, c.Tor.DNSPort} {
					out = append(out, "tcp://"+netip.AddrPortFrom(gateway4, port).String(), "tcp://"+netip.AddrPortFrom(gateway6, port).String())
				}
				return out
			}},
		{name: "lanes", id: 8, define: lanes.Definition, caps: []string{"net_admin"},
			keeps: sandbox.Policy{Netlink: true, Exec: true}, // wireguard-go is a process of its own
			reads: func(c config.Config) config.Config {
				lanes := c.Lanes
				lanes.Keepalive = 0 // what clients are told is for sessions to say
				return config.Config{Lanes: lanes, Gateway: config.Gateway{Listen: c.Gateway.Listen}, Tor: ports(c.Tor)}
			}},
		{name: "keys", id: 3, define: keys.Definition,
			reads: func(c config.Config) config.Config { return config.Config{Server: c.Server} }},
		{name: logReader, id: 11, define: logs.Definition,
			reads: func(c config.Config) config.Config {
				l := c.Logs
				if len(l.Dirs) == 0 {
					l.Dirs = []string{c.Paths.Log}
				}
				return config.Config{Logs: l}
			}},
	}
}

func ports(t config.Tor) config.Tor {
	return config.Tor{TransPort: t.TransPort, DNSPort: t.DNSPort, PagePort: t.PagePort}
}

func prefixes(l config.Lane) config.Lane { return config.Lane{IPv4: l.IPv4, IPv6: l.IPv6} }

// told is all of the configuration that the service is told.
func (e entry) told(c config.Config) config.Config {
	out := e.reads(c)
	out.Log = c.Log
	return out
}

func lookup(name string) (entry, bool) {
	for _, e := range table() {
		if e.name == name {
			return e, true
		}
	}
	return entry{}, false
}

// callers gives who may call a service.
func callers(name string) []string {
	var out []string
	for _, e := range table() {
		for _, callee := range e.calls {
			if callee == name {
				out = append(out, e.name)
			}
		}
	}
	return out
}
