//go:build linux

package link_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
)

// router is a host that forwards between the machines a and b.
func router(t *testing.T) (r, a, b world) {
	t.Helper()
	r, a, b = newWorld(t), newWorld(t), newWorld(t)
	any4, any6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	for _, m := range []struct {
		world
		iface, v4, v6 string
	}{{a, "toa", "10.1.0.", "fd00:1::"}, {b, "tob", "10.2.0.", "fd00:2::"}} {
		must(t, r.AddVeth(m.iface, "eth0", m.ns.Fd()),
			// A router asks for IPv6 neighbours with its link-local address, and the
			// kernel's own takes a second or two to be usable.
			r.AddAddr(m.iface, netip.MustParsePrefix("fe80::1/64")),
			r.Apply(t.Context(), link.Interface{Name: m.iface, Up: true, Addresses: prefixes(m.v4+"1/24", m.v6+"1/64")}),
			m.SetUp("lo"),
			m.Apply(t.Context(), link.Interface{Name: "eth0", Up: true, Addresses: prefixes(m.v4+"2/24", m.v6+"2/64")}),
			m.AddRoute(any4, netip.MustParseAddr(m.v4+"1"), "eth0"),
			m.AddRoute(any6, netip.MustParseAddr(m.v6+"1"), "eth0"))
	}
	must(t, r.SetUp("lo"))
	r.do(t, func() error { _, err := r.EnableForwarding(t.Context()); return err })
	return r, a, b
}

// arrives tells what becomes of datagrams from one machine to an address of
// another: nil when one arrives, what the sender was told, or os.ErrDeadlineExceeded.
func arrives(t *testing.T, from, to world, addr string) error {
	t.Helper()
	var in, out net.Conn
	to.do(t, func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr)})
		in = c
		return err
	})
	defer in.Close()
	from.do(t, func() (err error) { out, err = net.Dial("udp", in.LocalAddr().String()); return err })
	defer out.Close()
	var err error
	for range 10 { // one may be lost while neighbours are looked for
		if _, err := out.Write([]byte("x")); err != nil {
			return err
		}
		_ = in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err = in.Read(make([]byte, 1)); err == nil {
			return nil
		}
	}
	return err
}

func TestProhibitedIsNotForwarded(t *testing.T) {
	r, a, b := router(t)
	plain := rules(t, r)
	both := func(from, to world, v4, v6 string) [2]error {
		return [2]error{arrives(t, from, to, v4), arrives(t, from, to, v6)}
	}
	flows := func(when string) {
		t.Helper()
		if got := both(a, b, "10.2.0.2", "fd00:2::2"); got != [2]error{} {
			t.Fatalf("%s: a to b: %v", when, got)
		}
	}
	is := func(want bool) {
		t.Helper()
		got, err := r.Prohibited("toa")
		must(t, err)
		if got != want {
			t.Errorf("prohibited: %v", got)
		}
	}
	flows("before")
	is(false)
	for range 2 {
		must(t, r.Prohibit("toa"))
		is(true)
		if got := rules(t, r); got != plain+2 {
			t.Errorf("%d rules, want %d", got, plain+2)
		}
	}
	for i, err := range both(a, b, "10.2.0.2", "fd00:2::2") {
		// The sender hears it at once: IPv4 as EHOSTUNREACH, IPv6 as EACCES.
		if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Errorf("family %d: a to b: %v", i, err)
		}
	}
	for _, own := range [][2]string{{"10.1.0.1", "fd00:1::1"}, {"10.2.0.1", "fd00:2::1"}} {
		if got := both(a, r, own[0], own[1]); got != [2]error{} {
			t.Errorf("a to the router's %v: %v", own, got)
		}
	}
	if got := both(r, a, "10.1.0.2", "fd00:1::2"); got != [2]error{} {
		t.Errorf("the router to a: %v", got)
	}

	for range 2 {
		must(t, r.Unprohibit("toa"))
		is(false)
		if got := rules(t, r); got != plain {
			t.Errorf("%d rules, want %d", got, plain)
		}
	}
	flows("after")
}

// The rule waits for an interface that is yet to be made, or made anew.
func TestProhibitComesBeforeTheInterface(t *testing.T) {
	r, a, b := router(t)
	must(t, r.Delete("toa"), r.Prohibit("toa"),
		r.AddVeth("toa", "eth0", a.ns.Fd()),
		r.Apply(t.Context(), link.Interface{Name: "toa", Up: true, Addresses: prefixes("10.1.0.1/24")}),
		a.Apply(t.Context(), link.Interface{Name: "eth0", Up: true, Addresses: prefixes("10.1.0.2/24")}),
		a.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.1.0.1"), "eth0"))
	if ok, err := r.Prohibited("toa"); !ok {
		t.Errorf("not prohibited: %v", err)
	}
	if err := arrives(t, a, b, "10.2.0.2"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a to b: %v", err)
	}
	if err := arrives(t, a, r, "10.1.0.1"); err != nil {
		t.Errorf("a to the router: %v", err)
	}
}

func TestProhibitRefusesNames(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"", strings.Repeat("x", unix.IFNAMSIZ)} {
		if err := w.Prohibit(name); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
