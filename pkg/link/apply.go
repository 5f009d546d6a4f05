//go:build linux

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// Kinds of links, as the kernel names them.
const (
	KindWireGuard = "wireguard"
	KindTUN       = "tun"
	KindBridge    = "bridge"
)

// Interface is how an interface should be.
type Interface struct {
	Name       string
	Kind       string // made when missing: wireguard, bridge; "" is any, which must exist
	MTU        int    // 0 leaves it
	TxQueueLen int    // 0 leaves it
	Addresses  []netip.Prefix
	Up         bool
}

// State is how an interface is. Addresses leaves out IPv6 link-local ones.
type State struct {
	Name       string
	Kind       string // "" for hardware
	Index      int
	MTU        int
	TxQueueLen int
	Addresses  []netip.Prefix
	Up         bool
}

// Get tells how an interface is; a missing one is fault.NotFound.
func (l *Links) Get(name string) (State, error) {
	nl, err := l.byName(name)
	if err != nil {
		return State{}, err
	}
	addrs, err := l.addresses(nl)
	if err != nil {
		return State{}, err
	}
	a := nl.Attrs()
	s := State{Name: a.Name, Kind: kind(nl), Index: a.Index, MTU: a.MTU, TxQueueLen: a.TxQLen, Up: a.Flags&net.FlagUp != 0}
	for _, a := range addrs {
		if p, ok := toPrefix(a.IPNet); ok {
			s.Addresses = append(s.Addresses, p)
		}
	}
	return s, nil
}

func kind(nl netlink.Link) string {
	switch t := nl.(type) {
	case *netlink.Tuntap:
		if t.Mode == netlink.TUNTAP_MODE_TAP {
			return "tap"
		}
		return KindTUN
	case *netlink.Device:
		return ""
	}
	return nl.Type()
}

// CreateWireGuard makes a link of the kernel's WireGuard. ErrNotSupported when
// the kernel has none, fault.Exists when the name is taken.
func (l *Links) CreateWireGuard(name string) error { return l.create(name, KindWireGuard) }

func (l *Links) create(name, kind string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	var nl netlink.Link
	switch kind {
	case KindWireGuard:
		nl = &netlink.Wireguard{LinkAttrs: attrs}
	case KindBridge:
		nl = &netlink.Bridge{LinkAttrs: attrs}
	default:
		return fault.InvalidField("kind", "links of kind %q cannot be made", kind)
	}
	err := l.h.LinkAdd(nl)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("make %s interface %s: %w", kind, name, ErrNotSupported)
	case errors.Is(err, unix.EEXIST):
		return fault.Wrap(err, fault.Exists, "interface %s exists", name)
	case errors.Is(err, unix.EPERM):
		return fault.Wrap(err, fault.Denied, "making interface %s needs CAP_NET_ADMIN", name)
	}
	return fmt.Errorf("make %s interface %s: %w", kind, name, err)
}

// Apply makes an interface what is wanted: exactly the given addresses, IPv6
// link-local ones aside, and nothing changed that is right already. WireGuard and
// TUN links get no link-local address. IPv6 addresses are usable at once, without
// duplicate address detection.
func (l *Links) Apply(ctx context.Context, want Interface) error {
	for i, p := range want.Addresses {
		if err := checkPrefix(fmt.Sprintf("addresses[%d]", i), p); err != nil {
			return err
		}
	}
	nl, err := l.byName(want.Name)
	if errors.Is(err, fault.NotFound) && want.Kind != "" {
		if err := l.create(want.Name, want.Kind); err != nil {
			return err
		}
		nl, err = l.byName(want.Name)
	}
	if err != nil {
		return err
	}
	if want.Kind != "" && kind(nl) != want.Kind {
		return fault.New(fault.Conflict, "interface %s is of kind %q, not %q", want.Name, kind(nl), want.Kind).
			WithHint("choose another interface name, or remove it with `ip link del %s`", want.Name)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.applyLink(nl, want); err != nil {
		return err
	}
	if err := l.applyAddresses(ctx, nl, want.Addresses); err != nil {
		return err
	}
	up := nl.Attrs().Flags&net.FlagUp != 0
	switch {
	case want.Up && !up:
		err = l.h.LinkSetUp(nl)
	case !want.Up && up:
		err = l.h.LinkSetDown(nl)
	}
	if err != nil {
		return fmt.Errorf("switch interface %s on or off: %w", want.Name, err)
	}
	return nil
}

func (l *Links) applyLink(nl netlink.Link, want Interface) error {
	a := nl.Attrs()
	if want.MTU != 0 && a.MTU != want.MTU {
		if err := l.h.LinkSetMTU(nl, want.MTU); err != nil {
			return fmt.Errorf("set mtu %d of %s: %w", want.MTU, a.Name, err)
		}
	}
	if want.TxQueueLen != 0 && a.TxQLen != want.TxQueueLen {
		if err := l.h.LinkSetTxQLen(nl, want.TxQueueLen); err != nil {
			return fmt.Errorf("set queue length %d of %s: %w", want.TxQueueLen, a.Name, err)
		}
	}
	// The mode counts when the link comes up.
	if k := kind(nl); (k == KindWireGuard || k == KindTUN) && a.Flags&net.FlagUp == 0 {
		return l.noLinkLocal(nl)
	}
	return nil
}

// applyAddresses removes first: an address that stays in the subnet of a removed
// one may go with it, which is why the list is read again before adding.
func (l *Links) applyAddresses(ctx context.Context, nl netlink.Link, want []netip.Prefix) error {
	name := nl.Attrs().Name
	have, err := l.addresses(nl)
	if err != nil {
		return err
	}
	for _, a := range have {
		if p, ok := plain(a); ok && slices.Contains(want, p) {
			continue
		}
		// EADDRNOTAVAIL: it went with an earlier one.
		if err := l.h.AddrDel(nl, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s from %s: %w", a.IPNet, name, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if have, err = l.addresses(nl); err != nil {
		return err
	}
	for _, p := range want {
		present := slices.ContainsFunc(have, func(a netlink.Addr) bool {
			q, ok := plain(a)
			return ok && q == p
		})
		if present {
			continue
		}
		if err := l.addAddr(nl, p); err != nil {
			return err
		}
	}
	return nil
}

// plain is an address as a prefix; not ok for point-to-point ones.
func plain(a netlink.Addr) (netip.Prefix, bool) {
	if a.Peer != nil && !a.Peer.IP.Equal(a.IP) {
		return netip.Prefix{}, false
	}
	return toPrefix(a.IPNet)
}

// addresses lists all but the IPv6 link-local ones.
func (l *Links) addresses(nl netlink.Link) ([]netlink.Addr, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return l.h.AddrList(nl, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", nl.Attrs().Name, err)
	}
	return slices.DeleteFunc(all, func(a netlink.Addr) bool {
		return a.IPNet == nil || a.IP.To4() == nil && a.IP.IsLinkLocalUnicast()
	}), nil
}
