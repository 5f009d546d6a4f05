//go:build linux

package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// AddVeth makes a pair of connected links: name in this namespace, peer in the
// one that the descriptor peerNS names.
func (l *Links) AddVeth(name, peer string, peerNS int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	v := netlink.NewVeth(attrs)
	v.PeerName = peer
	v.PeerNamespace = netlink.NsFd(peerNS)
	if err := l.h.LinkAdd(v); err != nil {
		return fmt.Errorf("add veth %s to %s: %w", name, peer, err)
	}
	return nil
}

// AddBridge makes an empty bridge.
func (l *Links) AddBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := l.h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return nil
}

// SetMaster plugs a link into a bridge.
func (l *Links) SetMaster(name, bridge string) error {
	nl, err := l.byName(name)
	if err != nil {
		return err
	}
	br, err := l.byName(bridge)
	if err != nil {
		return err
	}
	if err := l.h.LinkSetMaster(nl, br); err != nil {
		return fmt.Errorf("plug %s into %s: %w", name, bridge, err)
	}
	return nil
}

// AddAddr adds one address with its prefix length. Duplicate address detection
// is off, so that the address can be used at once. Adding it again is no error.
func (l *Links) AddAddr(name string, p netip.Prefix) error {
	nl, err := l.byName(name)
	if err != nil {
		return err
	}
	return l.addAddr(nl, p)
}

func (l *Links) addAddr(nl netlink.Link, p netip.Prefix) error {
	if err := checkPrefix("address", p); err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := l.h.AddrReplace(nl, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, nl.Attrs().Name, err)
	}
	return nil
}

// AddRoute routes dst through name: to the router via, or directly on the link
// when via is the zero Addr. A route to the same dst is replaced.
func (l *Links) AddRoute(dst netip.Prefix, via netip.Addr, name string) error {
	if err := checkPrefix("destination", dst); err != nil {
		return err
	}
	nl, err := l.byName(name)
	if err != nil {
		return err
	}
	r := &netlink.Route{
		LinkIndex: nl.Attrs().Index,
		Dst:       ipNet(dst.Masked()),
		Scope:     netlink.SCOPE_LINK,
		Protocol:  unix.RTPROT_STATIC,
	}
	if via.IsValid() {
		r.Gw = via.AsSlice()
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	if err := l.h.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s through %s: %w", dst, name, err)
	}
	return nil
}

// SetUp brings a link up.
func (l *Links) SetUp(name string) error {
	nl, err := l.byName(name)
	if err != nil {
		return err
	}
	if err := l.h.LinkSetUp(nl); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// Delete removes a link with its addresses and routes. A missing one is no error.
func (l *Links) Delete(name string) error {
	nl, err := l.byName(name)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := l.h.LinkDel(nl); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenNone = 1

// NoLinkLocal keeps the kernel from giving a link an IPv6 link-local address when
// it comes up. One that it has already stays.
func (l *Links) NoLinkLocal(name string) error {
	nl, err := l.byName(name)
	if err != nil {
		return err
	}
	return l.noLinkLocal(nl)
}

func (l *Links) noLinkLocal(nl netlink.Link) error {
	err := l.h.LinkSetIP6AddrGenMode(nl, addrGenNone)
	// Without IPv6 in the kernel there is nothing to keep away.
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("switch off link-local addresses of %s: %w", nl.Attrs().Name, err)
	}
	return nil
}
