//go:build linux

package link

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// Route is a prefix that this host reaches through a link.
type Route struct {
	Prefix netip.Prefix
	Link   string
}

// Overlaps lists what of this host shares addresses with prefix: the networks of
// its own addresses and the routes of the main table, default routes aside. What
// belongs to exceptLinks does not count. An empty answer means that prefix is free.
func (l *Links) Overlaps(prefix netip.Prefix, exceptLinks ...string) ([]Route, error) {
	if err := checkPrefix("prefix", prefix); err != nil {
		return nil, err
	}
	prefix = prefix.Masked()
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return l.h.AddrList(nil, family(prefix.Addr())) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	routes, err := l.mainRoutes(family(prefix.Addr()))
	if err != nil {
		return nil, err
	}
	var found []Route
	add := func(p netip.Prefix, index int) {
		name := names[index]
		if p.Bits() > 0 && p.Overlaps(prefix) && !slices.Contains(exceptLinks, name) {
			found = append(found, Route{Prefix: p.Masked(), Link: name})
		}
	}
	for _, a := range addrs {
		if p, ok := toPrefix(a.IPNet); ok {
			add(p, a.LinkIndex)
		}
	}
	for _, r := range routes {
		if p, ok := toPrefix(r.Dst); ok {
			add(p, outLink(r))
		}
	}
	slices.SortFunc(found, func(a, b Route) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Link, b.Link))
	})
	return slices.Compact(found), nil
}

// Uplink is the link of the default route, by IPv4 or else by IPv6, with its MTU.
// fault.NotFound when there is no default route.
func (l *Links) Uplink() (name string, mtu int, err error) {
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := l.mainRoutes(fam)
		if err != nil {
			return "", 0, err
		}
		var best *netlink.Route
		for i, r := range routes {
			if p, ok := toPrefix(r.Dst); ok && p.Bits() > 0 || outLink(r) == 0 {
				continue
			}
			if best == nil || r.Priority < best.Priority {
				best = &routes[i]
			}
		}
		if best == nil {
			continue
		}
		nl, err := l.h.LinkByIndex(outLink(*best))
		if err != nil {
			return "", 0, fmt.Errorf("look up the link of the default route: %w", err)
		}
		return nl.Attrs().Name, nl.Attrs().MTU, nil
	}
	return "", 0, fault.New(fault.NotFound, "this host has no default route").
		WithHint("connect it to a network, or name the interface in the configuration")
}

// mainRoutes lists the routes of the main table that lead somewhere.
func (l *Links) mainRoutes(fam int) ([]netlink.Route, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return l.h.RouteList(nil, fam) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return slices.DeleteFunc(routes, func(r netlink.Route) bool { return r.Type != unix.RTN_UNICAST }), nil
}

// outLink is the index of the link that a route leads to; the first of several.
func outLink(r netlink.Route) int {
	if r.LinkIndex == 0 && len(r.MultiPath) > 0 {
		return r.MultiPath[0].LinkIndex
	}
	return r.LinkIndex
}

func (l *Links) names() (map[int]string, error) {
	all, err := l.list()
	if err != nil {
		return nil, err
	}
	m := make(map[int]string, len(all))
	for _, nl := range all {
		m[nl.Attrs().Index] = nl.Attrs().Name
	}
	return m, nil
}

func (l *Links) list() ([]netlink.Link, error) {
	all, err := dump(l.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return all, nil
}
