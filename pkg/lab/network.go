//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
)

// buildNetwork makes the namespaces and what connects them: a veth pair from
// every machine to the internet, which routes between them and has the targets'
// addresses on its loopback.
func (l *Lab) buildNetwork(ctx context.Context) error {
	router, err := l.newNamespace(Internet)
	if err != nil {
		return err
	}
	defer router.Close()
	var uplinks *link.Links
	err = router.Do(func() (err error) {
		if err := setSysctls(routerSysctls); err != nil {
			return err
		}
		uplinks, err = link.Open()
		return err
	})
	if err != nil {
		return err
	}
	defer uplinks.Close()
	for _, a := range []netip.Addr{TargetV4, ResolverV4, TargetV6, ResolverV6} {
		if err := uplinks.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	if err := uplinks.SetUp("lo"); err != nil {
		return err
	}
	for _, p := range plan(l.state.Clients)[1:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.connect(p, uplinks); err != nil {
			return fmt.Errorf("machine %s: %w", p.name, err)
		}
	}
	return nil
}

func (l *Lab) newNamespace(machine string) (*netns.NS, error) {
	return netns.NewNamed(namespaceName(l.state.ID, machine))
}

// connect makes a machine's namespace and its link to the router.
func (l *Lab) connect(p machinePlan, uplinks *link.Links) error {
	ns, err := l.newNamespace(p.name)
	if err != nil {
		return err
	}
	defer ns.Close()
	var links *link.Links
	err = ns.Do(func() (err error) {
		// Before the link is there, because a link takes its settings from the defaults.
		if err := setSysctls(hostSysctls); err != nil {
			return err
		}
		links, err = link.Open()
		return err
	})
	if err != nil {
		return err
	}
	defer links.Close()

	if err := uplinks.AddVeth(p.uplink, Interface, ns.Fd()); err != nil {
		return err
	}
	for _, a := range []netip.Prefix{netip.PrefixFrom(p.gw4, p.v4.Bits()), netip.PrefixFrom(p.gw6, p.v6.Bits())} {
		if err := uplinks.AddAddr(p.uplink, a); err != nil {
			return err
		}
	}
	if err := uplinks.SetUp(p.uplink); err != nil {
		return err
	}
	for _, a := range []netip.Prefix{p.v4, p.v6} {
		if err := links.AddAddr(Interface, a); err != nil {
			return err
		}
	}
	for _, name := range []string{"lo", Interface} {
		if err := links.SetUp(name); err != nil {
			return err
		}
	}
	for dst, via := range map[netip.Prefix]netip.Addr{
		netip.PrefixFrom(netip.IPv4Unspecified(), 0): p.gw4,
		netip.PrefixFrom(netip.IPv6Unspecified(), 0): p.gw6,
	} {
		if err := links.AddRoute(dst, via, Interface); err != nil {
			return err
		}
	}
	return nil
}

// sysctl is a value below /proc/sys/net.
type sysctl struct{ name, value string }

// IPv4 settings of a new namespace are copied from the host, so what matters is
// set here. Without duplicate address detection an address works at once.
var (
	hostSysctls = []sysctl{
		{"ipv4/ip_forward", "0"},
		// Loose, as systemd's distributions have it.
		{"ipv4/conf/all/rp_filter", "2"},
		{"ipv4/conf/default/rp_filter", "2"},
		{"ipv6/conf/all/forwarding", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
	}
	routerSysctls = []sysctl{
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"},
	}
)

// setSysctls acts on the network namespace of the calling thread.
func setSysctls(list []sysctl) error {
	for _, s := range list {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", s.name), []byte(s.value), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	return nil
}
