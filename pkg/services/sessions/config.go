package sessions

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
)

// Config is what sessions needs to know.
type Config struct {
	HeartbeatTTL time.Duration
	HardTTL      time.Duration
	History      time.Duration
	Endpoint     string // host that clients connect to; empty: found out
	ControlPort  string
	Keepalive    time.Duration
	VPN, Tor     config.Lane
}

// ConfigFrom picks what sessions needs out of the file.
func ConfigFrom(c config.Config) Config {
	_, port, _ := net.SplitHostPort(c.Gateway.Listen[0]) // validated with the configuration
	return Config{
		HeartbeatTTL: c.Sessions.HeartbeatTTL.D(), HardTTL: c.Sessions.HardTTL.D(), History: c.Sessions.History.D(),
		Endpoint: c.Server.Endpoint, ControlPort: port, Keepalive: c.Lanes.Keepalive.D(),
		VPN: c.Lanes.VPN, Tor: c.Lanes.Tor,
	}
}

// handshakeFresh is how long a handshake proves that a device is there: after
// REJECT_AFTER_TIME (WireGuard paper, section 6.1) its keys are dead.
const handshakeFresh = 180 * time.Second

// reply describes an open session to its device. Only fields that never change
// are read of it.
func (m *Manager) reply(s *session, server serverKeys) *client.Initiated {
	host := m.endpoint()
	return &client.Initiated{
		SessionID: s.ID,
		Lanes: client.Lanes{
			VPN: m.laneConfig(m.cfg.VPN, host, server.keys[lanes.VPN], s.presharedKey, s.VPNIPv4, s.VPNIPv6),
			Tor: m.laneConfig(m.cfg.Tor, host, server.keys[lanes.Tor], s.presharedKey, s.TorIPv4, s.TorIPv6),
		},
		HeartbeatTTL: int(m.cfg.HeartbeatTTL / time.Second),
		HardTTL:      int(s.ExpiresAt.Sub(m.now()) / time.Second),
	}
}

func (m *Manager) laneConfig(l config.Lane, host, key, psk string, ip4, ip6 netip.Addr) client.LaneConfig {
	gw := l.IPv4.Addr().Next()
	dns := make([]string, 0, len(l.DNS)+1)
	for _, a := range l.DNS {
		dns = append(dns, a.String())
	}
	if len(dns) == 0 {
		dns = append(dns, gw.String(), l.IPv6.Addr().Next().String())
	}
	return client.LaneConfig{
		Endpoint:            net.JoinHostPort(host, strconv.Itoa(int(l.Port))),
		ServerPublicKey:     key,
		PresharedKey:        psk,
		Addresses:           []string{netip.PrefixFrom(ip4, 32).String(), netip.PrefixFrom(ip6, 128).String()},
		AllowedIPs:          []string{"0.0.0.0/0", "::/0"},
		DNS:                 dns,
		MTU:                 l.MTU,
		PersistentKeepalive: int(m.cfg.Keepalive / time.Second),
		ControlURL:          "https://" + net.JoinHostPort(gw.String(), m.cfg.ControlPort),
	}
}

// endpoint is the configured host, or the address of the default route. A UDP
// socket that is only connected sends nothing.
func (m *Manager) endpoint() string {
	if m.cfg.Endpoint != "" {
		return m.cfg.Endpoint
	}
	for _, probe := range [][2]string{{"udp4", "192.0.2.1:9"}, {"udp6", "[2001:db8::1]:9"}} {
		if c, err := net.Dial(probe[0], probe[1]); err == nil {
			defer c.Close()
			return c.LocalAddr().(*net.UDPAddr).IP.String()
		}
	}
	return "127.0.0.1"
}
