//go:build linux

package link_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
)

// world is a namespace of its own with an open handle on it.
type world struct {
	*link.Links
	ns *netns.NS
}

func newWorld(t *testing.T) world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	w := world{ns: ns}
	w.do(t, func() error { w.Links, err = link.Open(); return err })
	t.Cleanup(w.Close)
	return w
}

// do runs fn inside the namespace, which is what /proc/sys looks at.
func (w world) do(t *testing.T, fn func() error) {
	t.Helper()
	if err := w.ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

var ignoreOrder = cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.Compare(b) < 0 })

func comparePrefix() cmp.Option {
	return cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
}

func TestApplyMakesAnInterfaceWhatIsWanted(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	want := link.Interface{Name: "d0", Kind: link.KindBridge, MTU: 1420, TxQueueLen: 5000, Up: true,
		Addresses: prefixes("10.1.0.1/16", "10.1.0.2/16", "fd00:1::1/64")}
	must(t, w.Apply(ctx, want))
	check := func(want link.Interface) {
		t.Helper()
		got, err := w.Get("d0")
		must(t, err)
		if got.MTU != want.MTU || got.TxQueueLen != want.TxQueueLen || got.Up != want.Up || got.Kind != want.Kind {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if d := cmp.Diff(want.Addresses, got.Addresses, ignoreOrder, comparePrefix()); d != "" {
			t.Errorf("addresses (-want +got):\n%s", d)
		}
	}
	check(want)

	// Removing the first address of a subnet takes the second with it, unless it
	// is put back.
	want.Addresses = prefixes("10.1.0.2/16", "10.9.0.1/32", "fd00:1::2/64")
	want.MTU = 1400
	must(t, w.Apply(ctx, want))
	check(want)

	want.Addresses, want.Up = nil, false
	must(t, w.Apply(ctx, want))
	check(want)
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	w := newWorld(t)
	want := link.Interface{Name: "d0", Kind: link.KindBridge, MTU: 1420, TxQueueLen: 5000, Up: true,
		Addresses: prefixes("10.1.0.1/16", "fd00:1::1/64")}
	must(t, w.Apply(t.Context(), want))
	var fd int
	w.do(t, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		const groups = 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1)
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	})
	defer unix.Close(fd)
	before, err := w.Get("d0")
	must(t, err)
	must(t, w.Apply(t.Context(), want))
	after, err := w.Get("d0")
	must(t, err)
	if d := cmp.Diff(before, after, comparePrefix()); d != "" {
		t.Errorf("state changed:\n%s", d)
	}
	if n, err := unix.Read(fd, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the kernel announced a change: %d bytes, %v", n, err)
	}
}

func TestApplyKeepsLinkLocalAddresses(t *testing.T) {
	w := newWorld(t)
	must(t, w.Apply(t.Context(), link.Interface{Name: "d0", Kind: link.KindBridge, Up: true}))
	must(t, w.AddAddr("d0", netip.MustParsePrefix("fe80::5/64")))
	must(t, w.Apply(t.Context(), link.Interface{Name: "d0", Kind: link.KindBridge, Up: true}))
	if !strings.Contains(w.read(t, "/proc/thread-self/net/if_inet6"), "fe800000000000000000000000000005") {
		t.Error("the link-local address is gone")
	}
}

func (w world) read(t *testing.T, path string) string {
	t.Helper()
	var out string
	w.do(t, func() error {
		b, err := os.ReadFile(path)
		out = string(b)
		return err
	})
	return out
}

func TestApplyRefuses(t *testing.T) {
	w := newWorld(t)
	must(t, w.AddBridge("b0"))
	for _, tc := range []struct {
		name string
		in   link.Interface
		want fault.Code
	}{
		{"missing, no kind", link.Interface{Name: "nope"}, fault.NotFound},
		{"other kind", link.Interface{Name: "b0", Kind: link.KindTUN}, fault.Conflict},
		{"unknown kind", link.Interface{Name: "x0", Kind: "warp"}, fault.Invalid},
		{"no name", link.Interface{Kind: link.KindBridge}, fault.Invalid},
		{"long name", link.Interface{Name: "sixteencharacter", Kind: link.KindBridge}, fault.Invalid},
		{"mapped address", link.Interface{Name: "b0", Addresses: prefixes("::ffff:10.0.0.1/128")}, fault.Invalid},
		{"zero prefix", link.Interface{Name: "b0", Addresses: make([]netip.Prefix, 1)}, fault.Invalid},
	} {
		if err := w.Apply(t.Context(), tc.in); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Apply(ctx, link.Interface{Name: "b0", Up: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
}

func TestDeleteOfAMissingInterfaceIsNoError(t *testing.T) {
	w := newWorld(t)
	must(t, w.AddBridge("b0"), w.Delete("b0"), w.Delete("b0"))
	if _, err := w.Get("b0"); !errors.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestCreateWireGuard(t *testing.T) {
	w := newWorld(t)
	err := w.CreateWireGuard("wgt0")
	if errors.Is(err, link.ErrNotSupported) {
		if _, err := w.Get("wgt0"); !errors.Is(err, fault.NotFound) {
			t.Errorf("half an interface is left: %v", err)
		}
		t.Skipf("kernel WireGuard cannot be tested here: %v", err)
	}
	must(t, err)
	must(t, w.Apply(t.Context(), link.Interface{Name: "wgt0", Kind: link.KindWireGuard, MTU: 1420, Up: true, Addresses: prefixes("10.7.0.1/32")}))
	if err := w.CreateWireGuard("wgt0"); !errors.Is(err, fault.Exists) {
		t.Errorf("second: got %v", err)
	}
	must(t, w.Delete("wgt0"))
}

func TestOverlaps(t *testing.T) {
	w := newWorld(t)
	must(t, w.Apply(t.Context(), link.Interface{Name: "d0", Kind: link.KindBridge, Up: true, Addresses: prefixes("192.168.5.7/24", "fd00:5::7/64")}),
		w.Apply(t.Context(), link.Interface{Name: "wg0", Kind: link.KindBridge, Up: true, Addresses: prefixes("10.64.0.1/16")}),
		w.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.5.1"), "d0"),
		w.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00:5::1"), "d0"),
		w.AddRoute(netip.MustParsePrefix("10.0.0.0/12"), netip.MustParseAddr("192.168.5.1"), "d0"),
		w.AddRoute(netip.MustParsePrefix("fd00:7::/48"), netip.Addr{}, "d0"))
	for _, tc := range []struct {
		prefix string
		except []string
		want   []link.Route
	}{
		{"172.16.0.0/12", nil, nil},
		{"192.168.0.0/16", nil, []link.Route{{netip.MustParsePrefix("192.168.5.0/24"), "d0"}}},
		{"10.1.2.0/24", nil, []link.Route{{netip.MustParsePrefix("10.0.0.0/12"), "d0"}}},
		{"10.64.0.0/16", []string{"wg0"}, nil},
		{"10.64.0.0/16", nil, []link.Route{{netip.MustParsePrefix("10.64.0.0/16"), "wg0"}}},
		{"fd00:5::/32", nil, []link.Route{{netip.MustParsePrefix("fd00:5::/64"), "d0"}}},
		{"fd00:7::/64", nil, []link.Route{{netip.MustParsePrefix("fd00:7::/48"), "d0"}}},
		{"fd00:9::/64", nil, nil},
	} {
		got, err := w.Overlaps(netip.MustParsePrefix(tc.prefix), tc.except...)
		must(t, err)
		if d := cmp.Diff(tc.want, got, comparePrefix()); d != "" {
			t.Errorf("%s except %v (-want +got):\n%s", tc.prefix, tc.except, d)
		}
	}
}

func TestUplink(t *testing.T) {
	w := newWorld(t)
	if _, _, err := w.Uplink(); !errors.Is(err, fault.NotFound) {
		t.Errorf("no route: got %v", err)
	}
	must(t, w.Apply(t.Context(), link.Interface{Name: "six", Kind: link.KindBridge, MTU: 1400, Up: true, Addresses: prefixes("fd00:5::7/64")}),
		w.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00:5::1"), "six"))
	if name, mtu, err := w.Uplink(); name != "six" || mtu != 1400 || err != nil {
		t.Errorf("IPv6 only: got %s %d %v", name, mtu, err)
	}
	must(t, w.Apply(t.Context(), link.Interface{Name: "four", Kind: link.KindBridge, MTU: 1500, Up: true, Addresses: prefixes("10.5.0.1/24")}),
		w.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.5.0.2"), "four"))
	if name, mtu, err := w.Uplink(); name != "four" || mtu != 1500 || err != nil {
		t.Errorf("both: got %s %d %v", name, mtu, err)
	}
}

func TestEnableForwardingKeepsAutoconfiguredRoutes(t *testing.T) {
	w := newWorld(t)
	must(t, w.AddBridge("eth0"), w.AddBridge("quiet"))
	var first, second []string
	w.do(t, func() (err error) {
		for path, v := range map[string]string{
			"/proc/sys/net/ipv6/conf/all/forwarding":  "0",
			"/proc/sys/net/ipv4/ip_forward":           "0",
			"/proc/sys/net/ipv6/conf/eth0/accept_ra":  "1",
			"/proc/sys/net/ipv6/conf/quiet/accept_ra": "0",
		} {
			if err := os.WriteFile(path, []byte(v), 0); err != nil {
				return err
			}
		}
		if first, err = w.EnableForwarding(t.Context()); err != nil {
			return err
		}
		second, err = w.EnableForwarding(t.Context())
		return err
	})
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	want := []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.eth0.accept_ra"}
	got := first[:0:0]
	for _, s := range first {
		if s != "net.ipv6.conf.lo.accept_ra" { // what lo starts with is the kernel's affair
			got = append(got, s)
		}
	}
	if d := cmp.Diff(want, got, sorted); d != "" {
		t.Errorf("changed (-want +got):\n%s", d)
	}
	if len(second) != 0 {
		t.Errorf("second time changed %v", second)
	}
	for path, want := range map[string]string{
		"/proc/sys/net/ipv6/conf/all/forwarding":  "1",
		"/proc/sys/net/ipv4/ip_forward":           "1",
		"/proc/sys/net/ipv6/conf/eth0/accept_ra":  "2",
		"/proc/sys/net/ipv6/conf/quiet/accept_ra": "0",
	} {
		if got := strings.TrimSpace(w.read(t, path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := w.last(first); got != "net.ipv6.conf.all.forwarding" {
		t.Errorf("forwarding must be switched on after accept_ra, order was %v", first)
	}
}

func TestUnlimitRefusals(t *testing.T) {
	w := newWorld(t)
	names := []string{"net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"}
	w.do(t, func() error {
		for _, want := range [][]string{names, nil, names[:1]} {
			got, err := link.UnlimitRefusals()
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Errorf("changed (-want +got):\n%s%v", d, err)
			}
			if want == nil {
				must(t, os.WriteFile("/proc/sys/net/ipv4/icmp_ratelimit", []byte("1000"), 0))
			}
		}
		return nil
	})
	for _, name := range names {
		if got := strings.TrimSpace(w.read(t, "/proc/sys/"+strings.ReplaceAll(name, ".", "/"))); got != "0" {
			t.Errorf("%s is %s", name, got)
		}
	}
}

func (world) last(s []string) string { return s[len(s)-1] }

func TestVethReachesTheOtherNamespace(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	must(t, a.AddVeth("va", "vb", b.ns.Fd()), a.AddBridge("br"), a.SetMaster("va", "br"),
		a.AddAddr("br", netip.MustParsePrefix("10.3.0.1/24")), a.AddAddr("br", netip.MustParsePrefix("10.3.0.1/24")),
		a.SetUp("br"), a.SetUp("va"), b.SetUp("vb"), b.AddAddr("vb", netip.MustParsePrefix("10.3.0.2/24")))
	if _, err := a.Get("vb"); !errors.Is(err, fault.NotFound) {
		t.Errorf("the peer end is here: %v", err)
	}
	s, err := b.Get("vb")
	must(t, err)
	if !s.Up || s.Kind != "veth" {
		t.Errorf("got %+v", s)
	}
}
