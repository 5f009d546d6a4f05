//go:build linux

package link_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
)

// client is a host with a local network, a default route and a tunnel interface.
func client(t *testing.T) world {
	t.Helper()
	w := newWorld(t)
	must(t, w.Apply(t.Context(), link.Interface{Name: "lan", Kind: link.KindBridge, Up: true, Addresses: prefixes("192.168.1.2/24", "fd00:1::2/64")}),
		w.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.1.1"), "lan"),
		w.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00:1::1"), "lan"),
		w.Apply(t.Context(), link.Interface{Name: "tun", Kind: link.KindBridge, Up: true, Addresses: prefixes("10.8.0.2/32", "fd00:8::2/128")}))
	return w
}

// source asks the kernel which of its addresses a packet to dst would leave with:
// the routing decision, seen from outside.
func (w world) source(t *testing.T, dst string, mark int) string {
	t.Helper()
	var got string
	err := w.ns.Do(func() error {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if cerr := c.Control(func(fd uintptr) {
				if mark != 0 {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark)
				}
			}); cerr != nil {
				return cerr
			}
			return err
		}}
		c, err := d.Dial("udp", net.JoinHostPort(dst, "9"))
		if err != nil {
			return err
		}
		defer c.Close()
		got = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().String()
		return nil
	})
	if err != nil {
		return "error: " + err.Error()
	}
	return got
}

func TestTunnelTakesAllButTheLocalNetworkAndItself(t *testing.T) {
	w := client(t)
	tun := link.Tunnel{Interface: "tun", Table: 51820, Mark: 0xca6c, Prefixes: prefixes("0.0.0.0/0", "::/0")}
	for round := range 2 { // the second Apply finds all there
		w.do(t, func() error { return w.ApplyTunnel(t.Context(), tun) })
		for _, tc := range []struct {
			dst  string
			mark int
			want string
		}{
			{"203.0.113.1", 0, "10.8.0.2"},
			{"203.0.113.1", 0xca6c, "192.168.1.2"},
			{"192.168.1.77", 0, "192.168.1.2"},
			{"2001:db8::1", 0, "fd00:8::2"},
			{"2001:db8::1", 0xca6c, "fd00:1::2"},
			{"fd00:1::77", 0, "fd00:1::2"},
		} {
			if got := w.source(t, tc.dst, tc.mark); got != tc.want {
				t.Errorf("round %d: to %s with mark %#x: from %s, want %s", round, tc.dst, tc.mark, got, tc.want)
			}
		}
	}
	if got := strings.TrimSpace(w.read(t, "/proc/sys/net/ipv4/conf/all/src_valid_mark")); got != "1" {
		t.Errorf("src_valid_mark is %s", got)
	}
	before := rules(t, w)
	for range 2 {
		must(t, w.RemoveTunnel(t.Context(), tun))
	}
	if got := w.source(t, "203.0.113.1", 0); got != "192.168.1.2" {
		t.Errorf("after removal: from %s", got)
	}
	if got := rules(t, w); got != before-4 {
		t.Errorf("%d rules before removal, %d after; four are ours", before, got)
	}
}

// rules counts the policy rules of both families.
func rules(t *testing.T, w world) int {
	t.Helper()
	n := 0
	w.do(t, func() error {
		rib, err := syscall.NetlinkRIB(unix.RTM_GETRULE, unix.AF_UNSPEC)
		if err != nil {
			return err
		}
		msgs, err := syscall.ParseNetlinkMessage(rib)
		for _, m := range msgs {
			if m.Header.Type == unix.RTM_NEWRULE {
				n++
			}
		}
		return err
	})
	return n
}

func TestTunnelForSomePrefixesOfOneFamily(t *testing.T) {
	w := client(t)
	tun := link.Tunnel{Interface: "tun", Table: 70, Mark: 7, Prefixes: prefixes("198.51.100.0/24")}
	plain := rules(t, w)
	w.do(t, func() error { return w.ApplyTunnel(t.Context(), tun) })
	if got := w.source(t, "198.51.100.9", 0); got != "10.8.0.2" {
		t.Errorf("inside: from %s", got)
	}
	if got := w.source(t, "203.0.113.1", 0); got != "192.168.1.2" {
		t.Errorf("outside: from %s", got)
	}
	if got := rules(t, w); got != plain+2 {
		t.Errorf("%d rules, want %d", got, plain+2)
	}
	// Another table, mark and prefix replace what was there.
	next := link.Tunnel{Interface: "tun", Table: 70, Mark: 9, Prefixes: prefixes("203.0.113.0/24", "2001:db8::/32")}
	w.do(t, func() error { return w.ApplyTunnel(t.Context(), next) })
	got := []string{w.source(t, "198.51.100.9", 0), w.source(t, "203.0.113.1", 0), w.source(t, "203.0.113.1", 9), w.source(t, "2001:db8::1", 0)}
	if d := cmp.Diff([]string{"192.168.1.2", "10.8.0.2", "192.168.1.2", "fd00:8::2"}, got); d != "" {
		t.Errorf("after the change (-want +got):\n%s", d)
	}
	if got := rules(t, w); got != plain+4 {
		t.Errorf("%d rules, want %d", got, plain+4)
	}
}

func TestRemoveTunnelAfterTheInterfaceIsGone(t *testing.T) {
	w := client(t)
	for _, closed := range []bool{false, true} {
		tun := link.Tunnel{Interface: "tun", Table: 51820, Mark: 1, Prefixes: prefixes("0.0.0.0/0", "::/0"), FailClosed: closed}
		must(t, w.Apply(t.Context(), link.Interface{Name: "tun", Kind: link.KindBridge, Up: true, Addresses: prefixes("10.8.0.2/32", "fd00:8::2/128")}))
		w.do(t, func() error { return w.ApplyTunnel(t.Context(), tun) })
		if got := w.source(t, "203.0.113.1", 0); got != "10.8.0.2" {
			t.Errorf("closed=%v: from %s", closed, got)
		}
		must(t, w.Delete("tun"))
		for dst, open := range map[string]string{"203.0.113.1": "192.168.1.2", "2001:db8::1": "fd00:1::2"} {
			got := w.source(t, dst, 0)
			if closed && !strings.HasPrefix(got, "error:") && !strings.Contains(got, "no route") {
				t.Errorf("interface gone, closed: to %s from %s", dst, got)
			}
			if !closed && got != open {
				t.Errorf("interface gone, open: to %s from %s", dst, got)
			}
		}
		must(t, w.RemoveTunnel(t.Context(), tun))
		if got := w.source(t, "203.0.113.1", 0); got != "192.168.1.2" {
			t.Errorf("closed=%v, removed: from %s", closed, got)
		}
	}
}

func TestTunnelWithoutIPv6OnTheInterface(t *testing.T) {
	w := client(t)
	tun := link.Tunnel{Interface: "tun", Table: 51820, Mark: 1, Prefixes: prefixes("0.0.0.0/0", "::/0")}
	w.do(t, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/tun/disable_ipv6", []byte("1"), 0); err != nil {
			return err
		}
		if w.IPv6Enabled("tun") || !w.IPv6Enabled("lan") {
			t.Error("IPv6Enabled is wrong")
		}
		return w.ApplyTunnel(t.Context(), tun)
	})
	if got := w.source(t, "203.0.113.1", 0); got != "10.8.0.2" {
		t.Errorf("IPv4 from %s", got)
	}
	// The tunnel cannot carry IPv6, the local network could: in the clear.
	if got := w.source(t, "2001:db8::1", 0); !strings.HasPrefix(got, "error:") {
		t.Errorf("IPv6 from %s, want refused", got)
	}
	if got := w.source(t, "fd00:1::9", 0); got != "fd00:1::2" {
		t.Errorf("IPv6 of the local network from %s", got)
	}
	w.do(t, func() error { return w.RemoveTunnel(t.Context(), tun) })
	if got := w.source(t, "2001:db8::1", 0); got != "fd00:1::2" {
		t.Errorf("IPv6 after the tunnel from %s", got)
	}
}

func TestTunnelRefuses(t *testing.T) {
	w := client(t)
	for name, tun := range map[string]link.Tunnel{
		"main table": {Interface: "tun", Table: 254, Mark: 1},
		"no table":   {Interface: "tun", Mark: 1},
		"no mark":    {Interface: "tun", Table: 9},
		"bad prefix": {Interface: "tun", Table: 9, Mark: 1, Prefixes: make([]netip.Prefix, 1)},
	} {
		if err := w.ApplyTunnel(t.Context(), tun); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	err := w.ApplyTunnel(t.Context(), link.Tunnel{Interface: "nope", Table: 9, Mark: 1})
	if !errors.Is(err, fault.NotFound) {
		t.Errorf("missing interface: got %v", err)
	}
}
