//go:build linux

package link

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// RulePriorityProhibit is that of the rules that Prohibit makes: right behind the
// local table (0), so that what is for this host still arrives, and before any
// rule of strangers that could lead elsewhere.
const RulePriorityProhibit = 1

// Prohibit keeps this host from forwarding anything that comes from an interface.
// For each family there is then one rule
//
//	1: from all iif INTERFACE prohibit
//
// which needs no nftables and no process, and outlives both. What is for this
// host's own addresses is found in the local table before and still arrives; the
// sender of the rest is told that it is prohibited. The interface need not exist
// yet: the rule holds from its first packet on.
func (l *Links) Prohibit(iface string) error {
	if err := checkName(iface); err != nil {
		return err
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		r := prohibition(fam, iface)
		// The kernel refuses a second one; to list before would only be a race.
		err := l.h.RuleAdd(&r)
		if err == nil || errors.Is(err, unix.EEXIST) || lacks(fam, err) {
			continue
		}
		if errors.Is(err, unix.EPERM) {
			return fault.Wrap(err, fault.Denied, "prohibiting what comes from %s needs CAP_NET_ADMIN", iface)
		}
		return fmt.Errorf("prohibit what comes from %s: %w", iface, err)
	}
	return nil
}

// Prohibited tells whether the rules of Prohibit are there, for both families.
func (l *Links) Prohibited(iface string) (bool, error) {
	if err := checkName(iface); err != nil {
		return false, err
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := dump(func() ([]netlink.Rule, error) { return l.h.RuleList(fam) })
		if lacks(fam, err) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("list routing rules: %w", err)
		}
		want, found := prohibition(fam, iface), false
		for _, r := range rules {
			// The library lists no actions. Without a table or a goto hardly any but refusals
			// remain.
			if r.Type == 0 {
				r.Type = want.Type
			}
			r.Protocol = want.Protocol // the kernel takes one of another origin for the same
			found = found || r == want // whole: any other condition would make it narrower
		}
		if !found {
			return false, nil
		}
	}
	return true, nil
}

// Unprohibit takes back Prohibit. It is no error when nothing was prohibited, or
// when the interface is gone.
func (l *Links) Unprohibit(iface string) error {
	if err := checkName(iface); err != nil {
		return err
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		r := prohibition(fam, iface)
		r.Protocol = 0 // Prohibit takes one of another origin for its own, too
		if err := l.h.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) && !lacks(fam, err) {
			return fmt.Errorf("no longer prohibit what comes from %s: %w", iface, err)
		}
	}
	return nil
}

func prohibition(fam int, iface string) netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Protocol = fam, RulePriorityProhibit, routeOrigin
	r.IifName, r.Type = iface, unix.RTN_PROHIBIT
	return *r
}

// lacks tells whether err means that this kernel has no IPv6 at all, so that
// nothing can leave by it. One that has IPv6 and no rules for it gives the same
// error, and that must not pass for prohibited.
func lacks(fam int, err error) bool {
	if fam != netlink.FAMILY_V6 || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	_, err = getSysctl("net/ipv6/conf/all/forwarding")
	return errors.Is(err, fs.ErrNotExist)
}
