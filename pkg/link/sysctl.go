//go:build linux

package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vpnd/pkg/fault"
)

const sysctlRoot = "/proc/sys"

// EnableForwarding lets this host forward IPv4 and IPv6, and lists the switches
// that it changed, in the names that sysctl.conf uses. A host that forwards IPv6
// ignores router advertisements and would soon lose the default route that it
// learned from one, so those interfaces are first told to heed them anyway
// (accept_ra=2). Tunnels are not: nobody behind them may offer this host a route.
//
// It acts on the namespace of the calling thread and needs CAP_NET_ADMIN, not root.
func (l *Links) EnableForwarding(ctx context.Context) (changed []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	set := func(name, value string) error {
		did, err := setSysctl(name, value)
		if did {
			changed = append(changed, strings.ReplaceAll(name, "/", "."))
		}
		return err
	}
	if err := set("net/ipv4/ip_forward", "1"); err != nil {
		return changed, err
	}
	const v6 = "net/ipv6/conf/all/forwarding"
	switch on, err := getSysctl(v6); {
	case errors.Is(err, fs.ErrNotExist):
		return changed, nil // no IPv6 in this kernel
	case err != nil:
		return changed, err
	case on != "0":
		return changed, nil
	}
	all, err := l.list()
	if err != nil {
		return changed, err
	}
	for _, nl := range all {
		if k := kind(nl); k == KindWireGuard || k == KindTUN {
			continue
		}
		name := "net/ipv6/conf/" + nl.Attrs().Name + "/accept_ra"
		if v, err := getSysctl(name); err != nil || v != "1" {
			continue // off, already 2, or an interface without IPv6
		}
		if err := set(name, "2"); err != nil {
			return changed, err
		}
	}
	return changed, set(v6, "1")
}

// UnlimitRefusals lifts the kernel's limit on ICMP errors to one receiver, for
// both families, and lists the switches that it changed. The default is one a second
// after a burst of six, so of the datagrams that a device sends in a row most would be
// refused in silence: QUIC then waits for timeouts where it could fall back to TCP at once. The
// limit on all receivers together (net.ipv4.icmp_msgs_per_sec) stays, so strangers
// cannot make this host a fountain of errors.
//
// It acts as EnableForwarding does. Where nothing is to be changed it costs two reads.
func UnlimitRefusals() (changed []string, err error) {
	for _, name := range []string{"net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"} {
		did, err := setSysctl(name, "0")
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 in this kernel
		}
		if err != nil {
			return changed, err
		}
		if did {
			changed = append(changed, strings.ReplaceAll(name, "/", "."))
		}
	}
	return changed, nil
}

// IPv6Enabled tells whether an interface can have IPv6 addresses and routes.
func (l *Links) IPv6Enabled(name string) bool {
	v, err := getSysctl("net/ipv6/conf/" + name + "/disable_ipv6")
	return err == nil && v == "0"
}

func getSysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	if err != nil {
		return "", fmt.Errorf("read kernel setting: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// setSysctl writes only a value that differs, so that a read-only /proc/sys is no
// obstacle where everything is set already.
func setSysctl(name, value string) (changed bool, err error) {
	have, err := getSysctl(name)
	if err != nil || have == value {
		return false, err
	}
	if err := os.WriteFile(filepath.Join(sysctlRoot, name), []byte(value), 0); err != nil {
		key := strings.ReplaceAll(name, "/", ".")
		return false, fault.Wrap(err, fault.Denied, "cannot set %s = %s", key, value).
			WithHint("set it before, for example with `sysctl -w %s=%s`", key, value)
	}
	return true, nil
}
