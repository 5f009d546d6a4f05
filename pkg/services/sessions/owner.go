package sessions

import (
	"net/netip"

	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

func (s *session) addresses() [4]netip.Addr {
	return [4]netip.Addr{s.VPNIPv4, s.VPNIPv6, s.TorIPv4, s.TorIPv6}
}

// Owner tells whose an address in a lane is. It is asked for every stream in
// lane tor, and looks into memory only.
func (m *Manager) Owner(addr netip.Addr) (*api.Owner, error) {
	addr = addr.Unmap().WithZone("")
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.byAddr[addr]
	if s == nil {
		return nil, fault.New(fault.NotFound, "no open session has the address %s", addr).WithReason("no_session")
	}
	lane := []netip.Addr{s.VPNIPv4, s.VPNIPv6}
	if addr == s.TorIPv4 || addr == s.TorIPv6 {
		lane = []netip.Addr{s.TorIPv4, s.TorIPv6}
	}
	return &api.Owner{
		Session: s.ID, User: s.User, Username: s.Username, Device: s.Device, DeviceName: s.DeviceName, Addresses: lane,
	}, nil
}
