package tunnel

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
)

// checkReversePath refuses what could not work: with strict reverse path
// filtering on the link to the server, the kernel drops the server's packets,
// because they come from where, by the tunnel's rules, nothing goes to. Only IPv4
// has such a filter.
func checkReversePath(links *link.Links, server netip.Addr) error {
	if !server.Is4() {
		return nil
	}
	uplink, _, err := links.Uplink()
	if err != nil {
		return nil // without a network, that is what is wrong
	}
	// The stricter in meaning is the smaller number, but the kernel takes the larger.
	const strict = "1"
	all, one := readFilter("all"), readFilter(uplink)
	if max(all, one) != strict {
		return nil
	}
	return fault.New(fault.Conflict, "strict reverse path filtering on %s would drop the packets of the tunnel", uplink).
		WithReason("rp_filter").WithHint("make it loose: sysctl -w net.ipv4.conf.%s.rp_filter=2", uplink)
}

func readFilter(name string) string {
	b, _ := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "rp_filter"))
	return strings.TrimSpace(string(b))
}
