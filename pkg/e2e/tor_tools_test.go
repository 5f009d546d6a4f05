//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/lab"
)

// tool runs a program of the distribution on the laptop.
func (w *torWorld) tool(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	cmd := w.Machine(laptop).CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// stockTools uses lane tor with what everybody has.
func stockTools(t *testing.T, w *torWorld) {
	curl := func(what string, args ...string) {
		t.Helper()
		out, err := w.tool("curl", append([]string{"-sS", "-m", "15"}, args...)...)
		if err != nil || !w.exits[out] {
			t.Errorf("curl %s: %q, %v; want the address of an exit", what, out, err)
		}
	}
	curl("an IPv4 address", page(lab.TargetV4, "/ip"))
	curl("an IPv6 address", page(lab.TargetV6, "/ip"))
	curl("a name over IPv4", "-4", "http://target.test/ip")
	curl("a name over IPv6", "-6", "http://target.test/ip")
	curl("a name", "http://target.test/ip")

	// curl itself refuses onion names since 8.1 (RFC 7686), so it is told.
	onion := w.network.Onion()
	short, err := w.tool("dig", "+short", "@198.51.100.53", onion)
	if _, bad := netip.ParseAddr(short); err != nil || bad != nil {
		t.Errorf("dig %s: %q, %v", onion, short, err)
	} else if out, err := w.tool("curl", "-sS", "-m", "15", "--resolve", onion+":80:"+short, "http://"+onion+"/ip"); err != nil || out == "" {
		t.Errorf("curl of the onion service: %q, %v", out, err)
	} else {
		t.Logf("the onion service saw %s", out)
	}
	digs(t, w)
	refusals(t, w)
}

var (
	digStatus = regexp.MustCompile(`status: (\w+)`)
	digTime   = regexp.MustCompile(`Query time: (\d+) msec`)
	digAnswer = regexp.MustCompile(`ANSWER: (\d+)`)
)

// digs asks for every usual type: what tor cannot look up is answered quickly
// and so that a program goes on.
func digs(t *testing.T, w *torWorld) {
	for _, q := range []struct {
		kind    string
		want    []string
		answers int
	}{
		{"A", []string{"NOERROR"}, 1},
		{"AAAA", []string{"NOERROR"}, 1},
		{"MX", []string{"NOERROR", "NOTIMP"}, 0},
		{"HTTPS", []string{"NOERROR", "NOTIMP"}, 0},
		{"TXT", []string{"NOERROR", "NOTIMP"}, 0},
	} {
		for _, how := range [][]string{nil, {"+tcp"}, {"-6"}, {"-6", "+tcp"}} {
			resolver := "198.51.100.53"
			if slices.Contains(how, "-6") {
				resolver = "2001:db8:53::53"
			}
			args := append([]string{"@" + resolver, "+tries=1", "+timeout=5", "target.test", q.kind}, how...)
			out, err := w.tool("dig", args...)
			status, took, count := digStatus.FindStringSubmatch(out), digTime.FindStringSubmatch(out), digAnswer.FindStringSubmatch(out)
			if err != nil || status == nil || took == nil || count == nil {
				t.Errorf("dig %v: %v\n%s", args, err, out)
				continue
			}
			ms, _ := strconv.Atoi(took[1])
			n, _ := strconv.Atoi(count[1])
			t.Logf("dig %v: %s, %d answers, %d ms", args[3:], status[1], n, ms)
			if !slices.Contains(q.want, status[1]) || n != q.answers || ms > 2000 {
				t.Errorf("dig %v: %s with %d answers after %d ms, want %v with %d\n%s", args, status[1], n, ms, q.want, q.answers, out)
			}
		}
	}
}

// refusals sends UDP 443 to many addresses, as browsers do with QUIC: every one
// is told at once to use TCP.
func refusals(t *testing.T, w *torWorld) {
	for _, first := range []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:53::1")} {
		to, late := first, 0
		var longest time.Duration
		const tries = 30
		for range tries {
			c, err := w.Machine(laptop).DialContext(t.Context(), "udp", netip.AddrPortFrom(to, 443).String())
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_ = c.SetDeadline(began.Add(time.Second))
			_, _ = c.Write([]byte("quic?"))
			_, err = c.Read(make([]byte, 10))
			took := time.Since(began)
			_ = c.Close()
			var timeout net.Error
			if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				late++
			} else {
				longest = max(longest, took)
			}
			to = to.Next()
		}
		t.Logf("udp 443 to %d addresses from %s on: %d not refused within a second, the others within %s", tries, first, late, longest.Round(time.Microsecond))
		if late > 0 {
			t.Errorf("%d of %d datagrams to port 443 from %s on were not refused within a second", late, tries, first)
		}
	}
}
