//go:build linux

package lab_test

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"vpnd/pkg/lab"
)

func TestPingBothFamilies(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 2})
	client := l.Machine("client1")
	for _, addr := range []netip.Addr{
		l.Machine(lab.Server).IPv4(), l.Machine(lab.Server).IPv6(),
		l.Machine("client2").IPv4(), l.Machine("client2").IPv6(),
		lab.TargetV4, lab.TargetV6,
	} {
		// So that the socket holds what comes while this process waits for a core.
		p, err := client.Ping(t.Context(), addr, 5*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "20 replies from "+addr.String(), func() bool { return p.Result().Received >= 20 })
		r := p.Stop()
		if r.Lost != 0 || r.Pending != 0 || r.Duplicates != 0 || r.Received != r.Sent || r.MinRTT <= 0 || r.MaxRTT < r.AvgRTT {
			t.Errorf("%v: %+v", addr, r)
		}
		if again := p.Stop(); again.Sent != r.Sent {
			t.Errorf("a second Stop: %+v", again)
		}
	}
}

func TestPingCountsWhatIsLost(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	server := l.Machine(lab.Server)
	ignore := func(value string) {
		err := server.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte(value), 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const interval = 2 * time.Millisecond
	p, err := l.Machine("client1").Ping(t.Context(), server.IPv4(), interval)
	if err != nil {
		t.Fatal(err)
	}
	sent := func(n int) func() bool { return func() bool { return p.Result().Sent >= n } }
	eventually(t, "a reply", func() bool { return p.Result().Received >= 5 })
	ignore("1")
	deaf := time.Now()
	eventually(t, "50 more pings", sent(p.Result().Sent+50))
	silence := time.Since(deaf)
	ignore("0")
	heard := p.Result().Received
	eventually(t, "replies again", func() bool { return p.Result().Received >= heard+5 })
	r := p.Stop()
	if r.Lost < 40 || r.Sent != r.Received+r.Lost || r.Pending != 0 || len(r.LostAt) != min(r.Lost, 100) {
		t.Errorf("got %+v", r)
	}
	if r.LongestGap < silence/2 || r.LongestGap > 10*silence {
		t.Errorf("longest gap %v, the silence was %v", r.LongestGap, silence)
	}
	if first := r.LostAt[0]; first.Before(deaf.Add(-time.Second)) || first.After(deaf.Add(silence)) {
		t.Errorf("the first loss was at %v, the silence began at %v", first, deaf)
	}
}

func TestPingThatCannotBeSent(t *testing.T) {
	l := newLab(t, lab.Options{})
	// The internet has no way to an address that none of its machines has.
	p, err := l.Machine(lab.Internet).Ping(t.Context(), netip.MustParseAddr("192.0.2.1"), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "3 refusals", func() bool { return p.Result().SendErrors >= 3 })
	r := p.Stop()
	if r.Lost != r.Sent || r.SendErrors != r.Sent || r.SendError == nil || r.LongestGap <= 0 {
		t.Errorf("got %+v", r)
	}
}

func TestPingRefuses(t *testing.T) {
	l := newLab(t, lab.Options{})
	m := l.Machine(lab.Server)
	if _, err := m.Ping(t.Context(), netip.Addr{}, time.Second); err == nil {
		t.Error("no address")
	}
	if _, err := m.Ping(t.Context(), lab.TargetV4, 0); err == nil {
		t.Error("no interval")
	}
}

func TestCloseEndsPingersAndCaptures(t *testing.T) {
	l := newLab(t, lab.Options{})
	m := l.Machine(lab.Server)
	p, err := m.Ping(t.Context(), lab.TargetV4, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a captured ping", func() bool { return len(c.Packets()) > 0 })
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := p.Stop(); r.Lost != 0 || r.Sent == 0 {
		t.Errorf("got %+v", r)
	}
	c.Stop()
	if _, err := m.Ping(t.Context(), lab.TargetV4, time.Millisecond); err == nil {
		t.Error("a closed lab pings")
	}
}
