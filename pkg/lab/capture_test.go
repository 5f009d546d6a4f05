//go:build linux

package lab_test

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
)

// echoOnce sends n bytes to a target's UDP echo and waits for them to come back.
func echoOnce(t *testing.T, m *lab.Machine, target netip.Addr, n int) netip.AddrPort {
	t.Helper()
	conn, err := m.DialContext(t.Context(), "udp", netip.AddrPortFrom(target, 7).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

func TestCaptureSeesBothDirections(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	start := time.Now()
	c, err := l.Machine(lab.Internet).Capture(t.Context(), m.Uplink())
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		self := echoOnce(t, m, target, 100)
		header := 28
		if target.Is6() {
			header = 48
		}
		udp := func(p lab.Packet) bool { return p.Proto == unix.IPPROTO_UDP && p.Src.Is4() == target.Is4() }
		var got []lab.Packet
		eventually(t, "two packets", func() bool {
			got = slices.DeleteFunc(c.Packets(), func(p lab.Packet) bool { return !udp(p) })
			return len(got) == 2
		})
		there, back := got[0], got[1]
		if there.Out || there.Src != self.Addr() || there.SrcPort != self.Port() || there.Dst != target || there.DstPort != 7 || there.Fragment || there.Len != 100+header || there.Interface != m.Uplink() {
			t.Errorf("there: %v", there)
		}
		if !back.Out || back.Dst != self.Addr() || back.SrcPort != 7 || back.DstPort != self.Port() {
			t.Errorf("back: %v", back)
		}
		if there.Time.Before(start.Add(-time.Second)) || back.Time.Before(there.Time) || time.Since(back.Time) > time.Minute {
			t.Errorf("times: %v, then %v", there.Time, back.Time)
		}
	}
	c.Stop()
	if n := c.Dropped(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

func TestCaptureMarksFragments(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	c, err := m.Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		echoOnce(t, m, target, 3000)
	}
	c.Stop()
	for _, v4 := range []bool{true, false} {
		var first, later int
		for _, p := range c.Packets() {
			if p.Out && p.Proto == unix.IPPROTO_UDP && p.Fragment && p.Src.Is4() == v4 {
				if p.DstPort == 7 {
					first++
				} else if p.DstPort == 0 {
					later++
				}
			}
		}
		if first != 1 || later != 2 {
			t.Errorf("IPv4 %v: %d first and %d later fragments in %v", v4, first, later, c.Packets())
		}
	}
}

// What passed before Stop is in the record, however little time there was.
func TestCaptureStopLosesNothing(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	for range 50 {
		c, err := m.Capture(t.Context(), lab.Interface)
		if err != nil {
			t.Fatal(err)
		}
		echoOnce(t, m, lab.TargetV4, 10)
		c.Stop()
		got := slices.DeleteFunc(c.Packets(), func(p lab.Packet) bool { return p.Proto != unix.IPPROTO_UDP })
		if len(got) != 2 {
			t.Fatalf("got %v", got)
		}
	}
}

func TestCaptureOfEveryInterfaceSeesLaterOnes(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	c, err := m.Capture(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(m.Namespace())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = m.Do(func() error {
		links, err := link.Open()
		if err != nil {
			return err
		}
		defer links.Close()
		if err := links.AddVeth("late0", "late1", ns.Fd()); err != nil {
			return err
		}
		if err := links.SetUp("late1"); err != nil {
			return err
		}
		if err := links.AddAddr("late0", netip.MustParsePrefix("10.9.9.1/24")); err != nil {
			return err
		}
		return links.SetUp("late0")
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := m.DialContext(t.Context(), "udp", "10.9.9.255:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broadcast on both ends", func() bool {
		all := c.Packets()
		return slices.ContainsFunc(all, func(p lab.Packet) bool { return p.Interface == "late0" && p.Out && p.DstPort == 9 }) &&
			slices.ContainsFunc(all, func(p lab.Packet) bool { return p.Interface == "late1" && !p.Out && p.DstPort == 9 })
	})
	c.Stop()
}

func TestCaptureEndsWithItsContext(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	ctx, cancel := context.WithCancel(t.Context())
	c, err := m.Capture(ctx, lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	c.Stop()
	n := len(c.Packets())
	echoOnce(t, m, lab.TargetV4, 10)
	if got := len(c.Packets()); got != n {
		t.Errorf("%d packets more after the end", got-n)
	}
	if _, err := m.Capture(t.Context(), "none0"); err == nil || !strings.Contains(err.Error(), "none0") {
		t.Errorf("an interface that is not there: %v", err)
	}
}
