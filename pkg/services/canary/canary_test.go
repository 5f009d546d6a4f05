package canary

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	api "vpnd/pkg/api/canary"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

func (w *world) test(name lanes.Name) *api.Result {
	w.t.Helper()
	r, err := w.s.Test(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func attempt(r *api.Result, kind, family string) api.Attempt {
	i := slices.IndexFunc(r.Attempts, func(a api.Attempt) bool { return a.Kind == kind && a.Family == family })
	if i < 0 {
		return api.Attempt{}
	}
	return r.Attempts[i]
}

func TestEveryKindArrivesWellFormed(t *testing.T) {
	w := newWorld(t, config.LeakTest{})
	for _, name := range []lanes.Name{lanes.Tor, lanes.VPN} {
		r := w.test(name)
		if !r.OK || r.Lane != name || r.LaneState != "up" || !strings.HasPrefix(r.Message, "nothing leaked") || r.Left != 0 || r.Reached != 0 {
			t.Errorf("%+v", r)
		}
		w.mu.Lock()
		got := w.got[name]
		w.mu.Unlock()
		if len(got) < r.Sent {
			t.Errorf("%d of %d packets arrived", len(got), r.Sent)
		}
		seen := map[string]bool{}
		parts := map[bool]map[byte][]byte{false: {}, true: {}}
		for _, b := range got {
			wellFormed(t, b)
			p, ok := readIP(b, false)
			if !ok || !slices.Contains(w.lanes[name].own, p.src) {
				t.Fatalf("source %v of % x", p.src, b)
			}
			if fragment := p.src.Is4() && binary.BigEndian.Uint16(b[6:]) != 0 || p.src.Is6() && b[6] == unix.IPPROTO_FRAGMENT; fragment {
				parts[p.src.Is6()][p.proto] = append(parts[p.src.Is6()][p.proto], p.data...)
				if data := parts[p.src.Is6()][p.proto]; p.later {
					transport(t, p.path, p.proto, data)
				}
				continue
			}
			key := p.dst.String()
			switch p.proto {
			case unix.IPPROTO_TCP:
				key += " tcp " + portText(p.data)
				if p.data[13] != tcpSYN {
					t.Errorf("flags %x", p.data[13])
				}
			case unix.IPPROTO_UDP:
				key += " udp " + portText(p.data)
				var m dns.Msg
				if m.Unpack(p.data[8:]) == nil && len(m.Question) == 1 && m.Question[0] == (dns.Question{Name: "www.example.com.", Qtype: dns.TypeA, Qclass: dns.ClassINET}) && m.RecursionDesired {
					key += " dns"
				}
			default:
				key += " echo"
			}
			seen[key] = true
		}
		l := w.lanes[name].lane
		gw := []string{l.IPv4.Addr().String(), l.IPv6.Addr().String()}
		want := []string{"192.0.2.1 tcp 80", "192.0.2.1 tcp 443", "192.0.2.1 tcp 25", "198.51.100.1 tcp 80", "203.0.113.1 tcp 80"}
		for _, out := range []string{"192.0.2.1", "2001:db8::1"} {
			want = append(want, out+" tcp 25", out+" udp 53", out+" udp 53 dns", out+" udp 443", out+" echo")
		}
		for _, g := range append(gw, "127.0.0.1", "::1", "10.8.0.1", "10.9.0.1") {
			want = append(want, g+" tcp 22", g+" tcp 9040", g+" tcp 9053", g+" tcp 9041", g+" udp 9053")
		}
		for _, g := range gw {
			want = append(want, g+" echo")
			if seen[g+" udp 53"] != (name == lanes.VPN) || seen[g+" tcp 53"] != (name == lanes.VPN) {
				t.Errorf("lane %s: port 53 of the gateway", name)
			}
		}
		for _, k := range want {
			if !seen[k] {
				t.Errorf("lane %s: %s was not sent", name, k)
			}
		}
		for _, six := range []bool{false, true} {
			if len(parts[six][unix.IPPROTO_UDP]) == 0 || len(parts[six]) != 2 {
				t.Errorf("fragments, IPv6 %v: %v", six, parts[six])
			}
		}
	}
}

func portText(data []byte) string {
	return strings.TrimPrefix(netip.AddrPortFrom(netip.IPv4Unspecified(), binary.BigEndian.Uint16(data[2:])).String(), "0.0.0.0:")
}

// torLike answers as lane tor does when it is up: TCP by tor, except to the
// gateway, DNS too, the rest refused.
func torLike(w *world) func(lanes.Name, []byte) [][]byte {
	return func(name lanes.Name, b []byte) [][]byte {
		p, _ := readIP(b, false)
		if p.later || p.proto == p.icmp() && (p.dst == w.lanes[name].lane.IPv4.Addr() || p.dst == w.lanes[name].lane.IPv6.Addr()) {
			return nil
		}
		gw, typ := w.lanes[name].lane.IPv4.Addr(), byte(icmp4Unreachable)
		if p.src.Is6() {
			gw, typ = w.lanes[name].lane.IPv6.Addr(), icmp6Unreachable
		}
		switch {
		case p.proto == unix.IPPROTO_TCP && p.data[13] != tcpSYN:
			return nil
		case p.proto == unix.IPPROTO_TCP && p.dst == gw:
			return [][]byte{tcpAnswer(p, tcpRST|tcpACK)}
		case p.proto == unix.IPPROTO_TCP:
			return [][]byte{tcpAnswer(p, tcpSYN|tcpACK)}
		case p.proto == unix.IPPROTO_UDP && binary.BigEndian.Uint16(p.data[2:]) == 53:
			return [][]byte{udpAnswer(p)}
		}
		return [][]byte{icmpAnswer(gw, b, typ)}
	}
}

func TestTorsAnswersAreNoLeakWhileItIsUp(t *testing.T) {
	w := newWorld(t, config.LeakTest{})
	w.do(func() { w.answer = torLike(w) })
	r := w.test(lanes.Tor)
	for _, family := range []string{"ipv4", "ipv6"} {
		for kind, want := range map[string]string{"tcp": "reply", "dns": "reply", "udp53": "reply", "udp443": "refused", "icmp": "refused", "fragment": "refused",
			"gateway-tcp": "reset", "gateway-udp": "refused", "loopback-tcp": "reply", "host-tcp": "reply", "echo": "reply"} {
			if a := attempt(r, kind, family); a.Answer != want || a.Leaked || a.Sent == 0 {
				t.Errorf("%s over %s: %+v, want %s", kind, family, a, want)
			}
		}
	}
	if !r.OK {
		t.Error(r.Message)
	}
	resets := 0
	w.do(func() {
		for _, b := range w.got[lanes.Tor] {
			if p, _ := readIP(b, false); p.proto == unix.IPPROTO_TCP && p.data[13] == tcpRST|tcpACK {
				resets++
				wellFormed(t, b)
			}
		}
	})
	if resets == 0 {
		t.Error("connections were left open")
	}

	// The same answers in a lane that is blocked come from somewhere else.
	w.do(func() { w.counts.Lanes[1].State = "blocked" })
	if r := w.test(lanes.Tor); r.OK || !attempt(r, "tcp", "ipv6").Leaked || !attempt(r, "dns", "ipv4").Leaked || attempt(r, "udp443", "ipv4").Leaked || attempt(r, "echo", "ipv4").Leaked {
		t.Errorf("blocked: %+v", r)
	}
	// In lane vpn it is a service of the host that must not answer.
	if r := w.test(lanes.VPN); r.OK || attempt(r, "tcp", "ipv4").Leaked || !attempt(r, "loopback-tcp", "ipv4").Leaked || !attempt(r, "gateway-udp", "ipv6").Leaked {
		t.Errorf("vpn: %+v", r)
	}
}

func TestWhatIsForSomebodyElseAnswersNothing(t *testing.T) {
	own := netip.MustParseAddr("10.9.255.254")
	p := path{own, netip.MustParseAddr("192.0.2.1")}
	for _, to := range []netip.Addr{own, own.Prev()} {
		tr := &trial{probes: []probe{{path: p, token: 777}}, byToken: map[uint16]int{777: 0}, answers: []map[verdict]bool{{}}}
		back := path{p.dst, to}
		must(t, tr.take(t.Context(), back.packet(unix.IPPROTO_UDP, 1, back.udp(443, 777, nil))))
		if tr.answers[0][reply] != (to == own) {
			t.Errorf("to %s: %v", to, tr.answers[0])
		}
	}
}

func TestLeakedByState(t *testing.T) {
	web := probe{reach: outside, proto: unix.IPPROTO_TCP, port: 80}
	mail := probe{reach: outside, proto: unix.IPPROTO_TCP, port: 25}
	ping := probe{reach: outside, proto: unix.IPPROTO_ICMP}
	ssh := probe{reach: gateway, proto: unix.IPPROTO_TCP, port: 22}
	for _, tc := range []struct {
		p      probe
		lane   lanes.Name
		what   verdict
		states []string
		want   bool
	}{
		{web, lanes.Tor, reply, []string{"maintenance"}, false},
		{mail, lanes.Tor, reply, []string{"maintenance"}, true},
		{mail, lanes.Tor, reply, []string{"up", "maintenance"}, false},
		{web, lanes.Tor, reply, []string{"blocked"}, true},
		{ping, lanes.Tor, reply, []string{"up"}, true},
		{ping, lanes.VPN, reply, []string{"up"}, false},
		{ssh, lanes.Tor, reply, []string{"up"}, true},
		{ssh, lanes.VPN, reply, []string{"up"}, true},
		{ssh, lanes.Tor, reset, []string{"up"}, false},
		{mail, lanes.Tor, refused, []string{"blocked"}, false},
		{mail, lanes.Tor, expired, []string{"up"}, true},
		{mail, lanes.VPN, expired, []string{"up"}, false},
	} {
		if got := tc.p.leaked(tc.lane, tc.what, tc.states...); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func TestTheKernelsCountersDecide(t *testing.T) {
	w := newWorld(t, config.LeakTest{})
	add := func(left, reached uint64) {
		w.onGet = func(n int) error {
			if n%2 == 0 { // the second count of a test
				w.counts.Left[lanes.Tor] += left
				w.counts.Reached[lanes.Tor] += reached
				w.counts.Left[lanes.VPN] += 100 // somebody else's
			}
			return nil
		}
	}
	w.do(func() { add(2, 0) })
	if r := w.test(lanes.Tor); r.OK || r.Left != 2 || r.Reached != 0 || !strings.Contains(r.Message, "2 packets left by another interface") {
		t.Errorf("%+v", r)
	}
	w.event("leak.found")
	w.do(func() { add(0, 1) })
	r := w.test(lanes.Tor)
	if r.OK || r.Left != 0 || r.Reached != 1 || !strings.Contains(r.Message, "1 packet reached services of the host") {
		t.Errorf("%+v", r)
	}
	if e := w.event("leak.found"); e.Data["lane"] != "tor" || e.Data["reached"] != "1" || e.Message != r.Message {
		t.Errorf("%+v", e)
	}
	w.do(func() { add(0, 0) })
	if r := w.test(lanes.Tor); !r.OK {
		t.Errorf("%+v", r)
	}
	w.event("leak.cleared")
	if r := w.test(lanes.Tor); !r.OK || len(w.events) != 0 {
		t.Errorf("%+v, %d events", r, len(w.events))
	}
	if len(w.wishes) != 0 {
		t.Error("blocked although that is not configured")
	}
}

func TestRepairsSinceTheLastTestAreTold(t *testing.T) {
	w := newWorld(t, config.LeakTest{Block: true})
	w.background(func(ctx context.Context) { _ = w.s.Run(ctx) })
	for w.s.known() == 0 { // until the service has its baseline
		time.Sleep(time.Millisecond)
	}
	w.do(func() { w.counts.Repairs, w.counts.Repaired = 3, "rule 1 of c_gate was missing" })
	for _, name := range []lanes.Name{lanes.Tor, lanes.VPN} { // each lane tells of it once
		if r := w.test(name); r.OK || r.Repaired != "rule 1 of c_gate was missing" || !strings.Contains(r.Message, r.Repaired) {
			t.Errorf("%+v", r)
		}
		if e := w.event("leaktest.rules_changed"); e.Data["lane"] != string(name) || e.Data["repaired"] == "" {
			t.Errorf("%+v", e)
		}
		if r := w.test(name); !r.OK || r.Repaired != "" {
			t.Errorf("%+v", r)
		}
	}
	if len(w.events) != 0 { // nothing had leaked, so nothing is cleared
		t.Errorf("%d events more", len(w.events))
	}
	w.do(func() { w.counts.Repairs, w.counts.Repaired = 0, "" }) // lanes started again
	if r := w.test(lanes.Tor); !r.OK {
		t.Errorf("%+v", r)
	}
	if len(w.wishes) != 0 {
		t.Error("what was put right took the lane down")
	}
}

func (s *Service) known() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.repairs)
}

func TestNotKnowingIsNeverOK(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*world)
		says  string
	}{
		"no handshake": {func(w *world) {
			w.s.pace.handshake = 50 * time.Millisecond
			w.counts.Lanes[1].Port = 9 // nobody
		}, "handshake"},
		"another key": {func(w *world) {
			w.s.pace.handshake = 50 * time.Millisecond
			w.counts.Lanes[1].PublicKey = w.counts.Lanes[0].PublicKey
		}, "handshake"},
		"no echo over IPv6": {func(w *world) { w.noEcho6, w.s.pace.settle = true, 300*time.Millisecond }, "over ipv6"},
		"no count before":   {func(w *world) { w.onGet = func(int) error { return fault.New(fault.Internal, "broken") } }, "lanes cannot be asked"},
		"no count after": {func(w *world) {
			w.onGet = func(n int) error {
				if n == 2 {
					return fault.New(fault.Internal, "broken")
				}
				return nil
			}
		}, "lanes cannot be asked"},
		"counts start anew": {func(w *world) {
			w.onGet = func(n int) error {
				if n == 2 {
					w.counts.Left[lanes.Tor] = 0
				}
				return nil
			}
		}, "started again"},
		"not counted":  {func(w *world) { delete(w.counts.Left, lanes.Tor) }, "does not count"},
		"no addresses": {func(w *world) { w.counts.Addrs = nil }, "no address"},
		"lane is down": {func(w *world) { w.counts.Lanes[1].State = "down" }, "is down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, config.LeakTest{})
			w.do(func() { tc.spoil(w) })
			r, err := w.s.Test(t.Context(), lanes.Tor)
			if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), tc.says) || fault.From(err).Hint == "" {
				t.Fatalf("%+v, %v; want %q", r, err, tc.says)
			}
			if len(w.s.results) != 0 || len(w.events) != 0 {
				t.Error("a result was kept or told")
			}
		})
	}
}

func TestThePeerIsThereDuringATestOnly(t *testing.T) {
	w := newWorld(t, config.LeakTest{})
	for range 2 {
		if r := w.test(lanes.Tor); !r.OK {
			t.Errorf("%+v", r)
		}
		w.do(func() {
			if w.peer != "" {
				t.Errorf("the peer stays: %q", w.peer)
			}
		})
		must(t, w.lanes[lanes.Tor].dev.IpcSet("replace_peers=true\n"))
	}
}

func TestTheNewestResultsAreKept(t *testing.T) {
	w := newWorld(t, config.LeakTest{})
	for i := range kept + 5 {
		w.s.remember(api.Result{Sent: i})
	}
	if len(w.s.results) != kept || w.s.results[0].Sent != kept+4 || w.s.results[kept-1].Sent != 5 {
		t.Errorf("%+v", w.s.results)
	}
}

func TestIntervalFindsBlocksAndClears(t *testing.T) {
	w := newWorld(t, config.LeakTest{Every: config.Duration(20 * time.Millisecond), Block: true})
	leaking := true
	w.do(func() {
		w.onGet = func(n int) error {
			if n%4 == 2 && leaking { // second count of lane tor; lane vpn has the next two
				w.counts.Left[lanes.Tor]++
			}
			return nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.s.Run(ctx) }()
	e := w.event("leak.found")
	w.do(func() {
		leaking = false
		if len(w.wishes) == 0 || w.wishes[0].Body.Wish != tor.WishDown || !strings.HasPrefix(w.wishes[0].Body.Reason, "leak test failed: 1 packet left") {
			t.Errorf("wishes %+v", w.wishes)
		}
	})
	if e.Data["lane"] != "tor" || !strings.HasSuffix(e.Message, "lane tor was taken down") {
		t.Errorf("%+v", e)
	}
	for found := false; !found; { // another leak may have been on its way
		select {
		case e := <-w.events:
			found = e.Type == "leak.cleared" && e.Data["lane"] == "tor"
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was cleared")
		}
	}
	cancel()
	must(t, <-done)
	w.do(func() {
		if w.peer != "" {
			t.Error("the peer stayed")
		}
	})
	if w.s.results[len(w.s.results)-1].Lane != lanes.Tor {
		t.Error("lane tor was not the first")
	}
}
