//go:build linux

package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"vpnd/pkg/lab"
)

func TestTargetsSeeTheMachine(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 2})
	for _, name := range []string{lab.Server, "client1", "client2"} {
		m := l.Machine(name)
		c := m.HTTPClient()
		for url, want := range map[string]netip.Addr{
			"http://203.0.113.10/":         m.IPv4(),
			"http://[2001:db8:ff::10]/":    m.IPv6(),
			"http://example.test/":         m.IPv4(),
			"http://[2001:db8:ff::10]:80/": m.IPv6(),
		} {
			if seen := whoSees(t, c, url); seen.Client != want {
				t.Errorf("%s from %s: seen as %v, want %v", url, name, seen.Client, want)
			}
		}
	}
	if got, want := whoSees(t, l.Machine("client1").HTTPClient(), "http://target.test/"), lab.TargetV4; got.Target != want || got.Host != "target.test" {
		t.Errorf("got %+v", got)
	}
}

func TestTargetPages(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	c := l.Machine("client1").HTTPClient()
	const base = "http://203.0.113.10"
	get := func(path string) (int, string) {
		resp, err := c.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := get("/ip"); status != 200 || body != "198.18.1.2\n" {
		t.Errorf("/ip: %d %q", status, body)
	}
	for _, n := range []int{0, 1, 3_000_000} {
		if status, body := get(fmt.Sprintf("/bytes?n=%d", n)); status != 200 || len(body) != n {
			t.Errorf("/bytes?n=%d: %d, %d bytes", n, status, len(body))
		}
	}
	for _, q := range []string{"", "?n=x", "?n=-1", "?n=99999999999999999"} {
		if status, _ := get("/bytes" + q); status != 400 {
			t.Errorf("/bytes%s: %d", q, status)
		}
	}
	if status, _ := get("/nothing"); status != 404 {
		t.Errorf("/nothing: %d", status)
	}
	resp, err := c.Post(base+"/upload", "application/octet-stream", strings.NewReader(strings.Repeat("x", 1_000_000)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != `{"bytes":1000000}`+"\n" {
		t.Errorf("/upload: %s %v", b, err)
	}
}

func TestTargetResolver(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	for _, tc := range []struct {
		server  netip.Addr
		network string
		name    string
		qtype   uint16
		want    string // the record's data, or the code when there is none
	}{
		{lab.ResolverV4, "udp", "target.test.", dns.TypeA, "203.0.113.10"},
		{lab.ResolverV4, "tcp", "example.test.", dns.TypeAAAA, "2001:db8:ff::10"},
		{lab.TargetV4, "udp", "Example.Test.", dns.TypeA, "203.0.113.10"},
		{lab.ResolverV4, "udp", "whoami.test.", dns.TypeTXT, `"198.18.1.2"`},
		{lab.ResolverV6, "udp", "whoami.test.", dns.TypeTXT, `"fd18:0:0:1::2"`},
		{lab.TargetV6, "tcp", "whoami.test.", dns.TypeTXT, `"fd18:0:0:1::2"`},
		{lab.ResolverV4, "udp", "whoami.test.", dns.TypeA, "NOERROR"},
		{lab.ResolverV4, "udp", "other.test.", dns.TypeA, "NXDOMAIN"},
	} {
		conn, err := m.DialContext(t.Context(), tc.network, netip.AddrPortFrom(tc.server, 53).String())
		if err != nil {
			t.Fatal(err)
		}
		client := dns.Client{Net: tc.network}
		reply, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(tc.name, tc.qtype), &dns.Conn{Conn: conn})
		_ = conn.Close()
		if err != nil {
			t.Errorf("%+v: %v", tc, err)
			continue
		}
		got := dns.RcodeToString[reply.Rcode]
		if len(reply.Answer) > 0 {
			got = strings.TrimPrefix(reply.Answer[0].String(), reply.Answer[0].Header().String())
		}
		if got != tc.want {
			t.Errorf("%+v: got %s", tc, got)
		}
	}
}

func TestTargetEcho(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	for _, network := range []string{"tcp", "udp"} {
		for _, a := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
			conn, err := l.Machine("client1").DialContext(t.Context(), network, netip.AddrPortFrom(a, 7).String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			sent := strings.Repeat("x", 4000) // over UDP, several fragments
			if _, err := io.WriteString(conn, sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != sent {
				t.Errorf("%s %v: %v", network, a, err)
			}
			_ = conn.Close()
		}
	}
}

func TestContacts(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	for _, address := range []string{"target.test:25", "[2001:db8:ff::10]:587"} {
		conn, err := m.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		greeting, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(greeting), "220 ") {
			t.Errorf("%s greets with %q %v", address, greeting, err)
		}
		_ = conn.Close()
	}
	contacts := func(query string) (out []lab.Contact) {
		resp, err := m.HTTPClient().Get("http://203.0.113.10/contacts" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	mail := contacts("?service=mail")
	if len(mail) != 2 || mail[0].From != m.IPv4() || mail[0].Port != 25 || mail[1].From != m.IPv6() || mail[1].Port != 587 {
		t.Errorf("mail: %+v", mail)
	}
	asked := slices.ContainsFunc(contacts("?service=dns"), func(c lab.Contact) bool {
		return c.From == m.IPv4() && c.Detail == "udp target.test. A" && c.Port == 53
	})
	if !asked {
		t.Errorf("dns: %+v", contacts("?service=dns"))
	}
	if got := contacts("?service=none"); got == nil || len(got) != 0 {
		t.Errorf("none: %+v", got)
	}
}

// Connections that nobody closes must not keep a lab from ending.
func TestCloseWithOpenConnections(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	echo, err := m.DialContext(t.Context(), "tcp", "203.0.113.10:7")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	resp, err := m.HTTPClient().Get("http://203.0.113.10/bytes?n=10000000000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	idle, err := m.DialContext(t.Context(), "tcp", "203.0.113.53:53")
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	start := time.Now()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("closing took %v", took)
	}
	_ = echo.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := echo.Read(make([]byte, 1)); errors.Is(err, nil) || isTimeout(err) {
		t.Errorf("the target's end is open: %v", err)
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
