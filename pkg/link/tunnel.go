//go:build linux

package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// What makes rules and routes recognisable as ours, also to the next process
// after a crash: these two priorities (which `ip rule` shows at the start of the
// line) and this origin (which `ip -d rule` and `ip route` show as "proto 205", a
// number that rtnetlink leaves to applications).
const (
	RulePriorityMain   = 4604
	RulePriorityTunnel = 4605
	routeOrigin        = 205
)

// lastResort is the metric of the routes that catch what a missing tunnel leaves.
const lastResort = 1 << 30

// Tunnel is the policy routing of a client: everything for Prefixes goes through
// Interface, save the tunnel's own packets, which carry Mark.
type Tunnel struct {
	Interface  string
	Table      int            // routing table of its own, all of whose routes are ours
	Mark       uint32         // firewall mark of the WireGuard device
	Prefixes   []netip.Prefix // usually 0.0.0.0/0 and ::/0
	FailClosed bool           // when the interface vanishes, refuse Prefixes instead of sending them in the clear
}

func (t Tunnel) validate() error {
	switch {
	case t.Table <= 0 || t.Table >= unix.RT_TABLE_COMPAT && t.Table <= unix.RT_TABLE_LOCAL:
		return fault.InvalidField("table", "%d is not a table of one's own", t.Table)
	case t.Mark == 0:
		return fault.InvalidField("mark", "the mark must not be 0")
	}
	for i, p := range t.Prefixes {
		if err := checkPrefix(fmt.Sprintf("prefixes[%d]", i), p); err != nil {
			return err
		}
	}
	return nil
}

// ApplyTunnel routes traffic into the tunnel. For each family that Prefixes has
// there are then
//
//	4604: from all lookup main suppress_prefixlength 0
//	4605: not from all fwmark MARK lookup TABLE
//
// and the prefixes in TABLE. The first rule lets the main table decide where it
// knows more than a default route (the local network), the second sends the rest
// into the tunnel, all but the tunnel's own packets. Where the interface has no
// IPv6, IPv6 is refused. Nothing of the main table changes. Left-overs of an earlier tunnel, in another table or with another
// mark, are removed. For IPv4 net.ipv4.conf.all.src_valid_mark is set, without
// which strict reverse path filtering drops the answers; it stays set.
func (l *Links) ApplyTunnel(ctx context.Context, t Tunnel) error {
	if err := t.validate(); err != nil {
		return err
	}
	nl, err := l.byName(t.Interface)
	if err != nil {
		return err
	}
	if _, err := setSysctl("net/ipv4/conf/all/src_valid_mark", "1"); err != nil {
		return err
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := ctx.Err(); err != nil {
			return err
		}
		var prefixes []netip.Prefix
		for _, p := range t.Prefixes {
			if family(p.Addr()) == fam {
				prefixes = append(prefixes, p.Masked())
			}
		}
		index := nl.Attrs().Index
		if fam == netlink.FAMILY_V6 && !l.IPv6Enabled(t.Interface) {
			index = 0 // what the tunnel cannot carry must not leave in the clear
		}
		if err := l.applyTunnelRoutes(fam, t, index, prefixes); err != nil {
			return err
		}
		// The rules come last: they must not point into an empty table.
		var rules []*netlink.Rule
		if len(prefixes) > 0 {
			rules = t.rules(fam)
		}
		if err := l.applyRules(fam, rules); err != nil {
			return err
		}
	}
	return nil
}

// RemoveTunnel takes away what ApplyTunnel made, whoever called it and however
// much of it is left. It is no error when nothing is, or when the interface is
// gone.
func (l *Links) RemoveTunnel(ctx context.Context, t Tunnel) error {
	if err := t.validate(); err != nil {
		return err
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.applyRules(fam, nil); err != nil {
			return err
		}
		if err := l.applyTunnelRoutes(fam, t, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

func (t Tunnel) rules(fam int) []*netlink.Rule {
	tunnel := netlink.NewRule()
	tunnel.Family, tunnel.Priority, tunnel.Protocol = fam, RulePriorityTunnel, routeOrigin
	tunnel.Invert, tunnel.Mark, tunnel.Table = true, t.Mark, t.Table

	local := netlink.NewRule()
	local.Family, local.Priority, local.Protocol = fam, RulePriorityMain, routeOrigin
	local.Table, local.SuppressPrefixlen = unix.RT_TABLE_MAIN, 0
	return []*netlink.Rule{tunnel, local}
}

// applyRules makes want the only rules of ours.
func (l *Links) applyRules(fam int, want []*netlink.Rule) error {
	all, err := dump(func() ([]netlink.Rule, error) { return l.h.RuleList(fam) })
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // this kernel lacks the family
	}
	if err != nil {
		return fmt.Errorf("list routing rules: %w", err)
	}
	var have []netlink.Rule
	for _, r := range all {
		if r.Protocol == routeOrigin && (r.Priority == RulePriorityMain || r.Priority == RulePriorityTunnel) {
			have = append(have, r)
		}
	}
	for _, w := range want {
		if slices.ContainsFunc(have, func(h netlink.Rule) bool { return sameRule(h, *w) }) {
			continue
		}
		if err := l.h.RuleAdd(w); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule %d: %w", w.Priority, err)
		}
	}
	for _, h := range have {
		if slices.ContainsFunc(want, func(w *netlink.Rule) bool { return sameRule(h, *w) }) {
			continue
		}
		h.Family = fam
		if err := l.h.RuleDel(&h); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove routing rule %d: %w", h.Priority, err)
		}
	}
	return nil
}

func sameRule(a, b netlink.Rule) bool {
	return a.Priority == b.Priority && a.Table == b.Table && a.Mark == b.Mark &&
		a.Invert == b.Invert && a.SuppressPrefixlen == b.SuppressPrefixlen
}

// tunnelRoute is what tells our routes of one table apart.
type tunnelRoute struct {
	dst    netip.Prefix
	metric int
	typ    int
	link   int // 0 for the routes of last resort
}

// applyTunnelRoutes makes the prefixes the only routes of ours in the table.
// Index 0 stands for a tunnel that lacks the family: its prefixes lead nowhere.
func (l *Links) applyTunnelRoutes(fam int, t Tunnel, index int, prefixes []netip.Prefix) error {
	all, err := dump(func() ([]netlink.Route, error) {
		return l.h.RouteListFiltered(fam, &netlink.Route{Table: t.Table}, netlink.RT_FILTER_TABLE)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		all, err = nil, nil // no such table yet, or no such family in this kernel
	}
	if err != nil {
		return fmt.Errorf("list routes of table %d: %w", t.Table, err)
	}
	have := make(map[tunnelRoute]netlink.Route)
	for _, r := range all {
		if r.Protocol == routeOrigin {
			have[identify(r, fam)] = r
		}
	}
	for _, p := range prefixes {
		var wanted []netlink.Route
		if index != 0 {
			wanted = append(wanted, netlink.Route{LinkIndex: index, Type: unix.RTN_UNICAST, Scope: scope(fam), Priority: 1})
		}
		if t.FailClosed || index == 0 {
			wanted = append(wanted, netlink.Route{Type: unix.RTN_UNREACHABLE, Priority: lastResort})
		}
		for _, r := range wanted {
			r.Dst, r.Table, r.Protocol, r.Family = ipNet(p), t.Table, routeOrigin, fam
			id := identify(r, fam)
			if _, ok := have[id]; ok {
				delete(have, id)
				continue
			}
			err := l.h.RouteReplace(&r)
			if index == 0 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
				continue // the kernel itself has no IPv6: nothing can leave
			}
			if err != nil {
				return fmt.Errorf("route %s into %s: %w", p, t.Interface, err)
			}
		}
	}
	for _, r := range have {
		if err := l.h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s from table %d: %w", r.Dst, t.Table, err)
		}
	}
	return nil
}

// identify takes the kernel's spellings as they come: no destination for a
// default route, and lo as the link of an IPv6 route that leads nowhere.
func identify(r netlink.Route, fam int) tunnelRoute {
	dst, ok := toPrefix(r.Dst)
	if !ok {
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if fam == netlink.FAMILY_V6 {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	id := tunnelRoute{dst: dst.Masked(), metric: r.Priority, typ: r.Type}
	if r.Type == unix.RTN_UNICAST {
		id.link = r.LinkIndex
	}
	return id
}

// scope is that of a route without a router; IPv6 has but one scope.
func scope(fam int) netlink.Scope {
	if fam == netlink.FAMILY_V4 {
		return netlink.SCOPE_LINK
	}
	return netlink.SCOPE_UNIVERSE
}
