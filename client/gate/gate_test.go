package gate_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/client/gate"
	"vpnd/client/gate/gatetest"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/secret"
	"vpnd/pkg/wgdev"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"vpn.example.org":              "vpn.example.org:4605",
		"https://vpn.example.org":      "vpn.example.org:4605",
		"HTTPS://VPN.Example.Org/":     "vpn.example.org:4605",
		"https://vpn.example.org:8443": "vpn.example.org:8443",
		"vpn.example.org.:443":         "vpn.example.org:443",
		"localhost:1":                  "localhost:1",
		"192.0.2.1":                    "192.0.2.1:4605",
		"192.0.2.1:99":                 "192.0.2.1:99",
		"2001:db8::1":                  "[2001:db8::1]:4605",
		"[2001:db8::1]":                "[2001:db8::1]:4605",
		"[2001:DB8:0::1]:99":           "[2001:db8::1]:99",
		"https://[::1]:99":             "[::1]:99",
		"::ffff:192.0.2.1":             "192.0.2.1:4605",
	} {
		got, err := gate.ParseAddress(in)
		if err != nil || got.HostPort() != want {
			t.Errorf("%s: got %s, %v, want %s", in, got.HostPort(), err, want)
		}
		if again, err := gate.ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%s: %q is read as %v, %v", in, got, again, err)
		}
	}
	for _, in := range []string{
		"", "http://vpn.example.org", "ftp://x", "https://", "vpn.example.org:", "vpn.example.org:0", "vpn.example.org:65536",
		"vpn.example.org:x", "https://alice@vpn.example.org", "vpn.example.org/path", "vpn.example.org?q", "vpn.example.org#f",
		"a b", "-x.org", "x..org", "192.0.2.300", "1.2.3", "fe80::1%eth0", "0.0.0.0", "::", "ff02::1", "vpn\n.org", strings.Repeat("x", 64) + ".org",
	} {
		got, err := gate.ParseAddress(in)
		if !errors.Is(err, fault.Invalid) || fault.From(err).Hint == "" {
			t.Errorf("%q: got %v, %v, want an error with a hint", in, got, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"vpn.example.org", "https://[2001:db8::1]:4605/", "1.2.3.4:5", "[::1", "https://a@b", "::1%25x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := gate.ParseAddress(s)
		if err != nil {
			return
		}
		if again, err := gate.ParseAddress("https://" + a.HostPort()); err != nil || again != a {
			t.Errorf("%q: %v is read back as %v, %v", s, a, again, err)
		}
	})
}

func TestParsePin(t *testing.T) {
	good := "sha256/" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	if p, err := gate.ParsePin(good); err != nil || p.String() != good {
		t.Errorf("got %v, %v", p, err)
	}
	for _, s := range []string{
		"", "sha256/", good[7:], "sha1/" + good[7:], strings.TrimSuffix(good, "="), good + "=", good + "\n", strings.Replace(good, "A=", "B=", 1),
		"sha256/" + base64.StdEncoding.EncodeToString(make([]byte, 31)), "SHA256/" + good[7:],
	} {
		if _, err := gate.ParsePin(s); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--pin") {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func FuzzParsePin(f *testing.F) {
	f.Add("sha256/" + base64.StdEncoding.EncodeToString(make([]byte, 32)))
	f.Add("sha256//")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := gate.ParsePin(s); err == nil && p.String() != s {
			t.Errorf("%q is another way to write %q", s, p)
		}
	})
}

func server(t *testing.T, cfg gatetest.Config) *gatetest.Server {
	t.Helper()
	s, err := gatetest.New(cfg)
	if err == nil {
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(s *gatetest.Server) *gate.Client {
	return gate.NewClient(s.Address(), s.Pin(), gate.NewResolver(0, nil), 0)
}

// rpcConn is a connection below gate's own.
func rpcConn(s *gatetest.Server) *rpc.Conn {
	return rpc.DialTLS(s.Address().HostPort(), s.Pin().TLS(), rpc.Options{})
}

func alice() gate.Credentials {
	return gate.Credentials{Login: "alice", Password: secret.New("correct horse"), Device: client.LoginDevice{Name: "laptop", OS: "linux"}}
}

func TestSignInIsSealedAndOpened(t *testing.T) {
	s := server(t, gatetest.Config{})
	tokens, err := dial(s).SignIn(t.Context(), alice())
	if err != nil || tokens.User.Username != "alice" || tokens.DeviceID == "" {
		t.Fatalf("got %+v, %v", tokens, err)
	}
	cred := alice()
	cred.Device.ID = tokens.DeviceID
	again, err := dial(s).SignIn(t.Context(), cred)
	if err != nil || again.DeviceID != tokens.DeviceID || s.Devices() != 1 {
		t.Errorf("signing in again made another device: %+v, %v", again, err)
	}
	cred.Password = secret.New("wrong")
	if _, err := dial(s).SignIn(t.Context(), cred); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("got %v", err)
	}
}

func TestADeviceTheServerForgotBecomesANewOne(t *testing.T) {
	s := server(t, gatetest.Config{})
	cred := alice()
	cred.Device.ID = "dev_forgotten"
	tokens, err := dial(s).SignIn(t.Context(), cred)
	if err != nil || tokens.DeviceID == "dev_forgotten" {
		t.Errorf("got %+v, %v", tokens, err)
	}
}

func TestALoginKeyThatWasReplacedIsFetchedAgain(t *testing.T) {
	s := server(t, gatetest.Config{})
	s.Fail("auth.login", fault.New(fault.Invalid, "no such key").WithReason("unknown_key"))
	if _, err := dial(s).SignIn(t.Context(), alice()); err != nil {
		t.Error(err)
	}
	if n := s.Calls("auth.pubkey"); n != 2 {
		t.Errorf("fetched the keys %d times, want 2", n)
	}
}

func TestAWrongClockIsNamed(t *testing.T) {
	s := server(t, gatetest.Config{})
	s.Fail("auth.login", fault.New(fault.Unauthenticated, "the sign-in is 1h old").WithReason("expired"))
	_, err := dial(s).SignIn(t.Context(), alice())
	if hint := fault.From(err).Hint; !strings.Contains(hint, "clock") {
		t.Errorf("got %v, hint %q", err, hint)
	}
}

func TestSealTakesTheFirstKeyItKnows(t *testing.T) {
	s := server(t, gatetest.Config{})
	set, err := client.GetPubkey.Call(t.Context(), rpcConn(s), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		keys []keys.LoginKey
		want string
	}{
		{"both", set.Keys, "login-647a"},
		{"small only", set.Keys[1:], "login-0020"},
		{"unknown ones first", append([]keys.LoginKey{{KID: "x", KEM: 0x9999, KDF: 1, AEAD: 2}, {KID: "y", KEM: 0x20, KDF: 1, AEAD: 3}, {KID: "z", KEM: 0x20, KDF: 1, AEAD: 2, PublicKey: "???"}}, set.Keys...), "login-647a"},
	} {
		sealed, err := gate.Seal(keys.LoginKeys{Keys: tc.keys}, alice(), time.Now())
		if err != nil || sealed.KID != tc.want {
			t.Errorf("%s: got %s, %v, want %s", tc.name, sealed.KID, err, tc.want)
		}
		if strings.Contains(sealed.Ciphertext, base64.StdEncoding.EncodeToString([]byte("correct horse"))[:16]) {
			t.Errorf("%s: the password can be read", tc.name)
		}
		if _, err := client.PostLogin.Call(t.Context(), rpcConn(s), &client.LoginRequest{Body: sealed}); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := gate.Seal(keys.LoginKeys{}, alice(), time.Now()); !errors.Is(err, fault.Unimplemented) {
		t.Errorf("no key: got %v", err)
	}
}

func TestAChangedPinIsRefusedBeforeAnythingIsSent(t *testing.T) {
	s := server(t, gatetest.Config{})
	c := dial(s)
	if err := s.NewCertificate(); err != nil {
		t.Fatal(err)
	}
	_, err := c.SignIn(t.Context(), alice())
	if fault.ReasonOf(err) != gate.ReasonPinChanged || !errors.Is(err, fault.Denied) {
		t.Errorf("got %v", err)
	}
	if n := s.Calls("auth.pubkey") + s.Calls("auth.login"); n != 0 {
		t.Errorf("%d calls reached the server", n)
	}
	if pin, err := gate.FetchPin(t.Context(), s.Address(), gate.NewResolver(0, nil), 0); err != nil || pin != s.Pin() {
		t.Errorf("fetched %v, %v", pin, err)
	}
}

func TestFetchPinOfSomethingElse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-x\r\n"))
			_ = c.Close()
		}
	}()
	a, _ := gate.ParseAddress(l.Addr().String())
	if _, err := gate.FetchPin(t.Context(), a, gate.NewResolver(0, nil), 0); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	_ = l.Close()
	if _, err := gate.FetchPin(t.Context(), a, gate.NewResolver(0, nil), 0); !errors.Is(err, fault.Unavailable) {
		t.Errorf("nobody listening: got %v", err)
	}
}

func TestRenewTellsWhetherTheTokenMayBeSpent(t *testing.T) {
	s := server(t, gatetest.Config{})
	c := dial(s)
	tokens, err := c.SignIn(t.Context(), alice())
	if err != nil {
		t.Fatal(err)
	}
	refresh := secret.New(tokens.RefreshToken)

	s.Fail("auth.reauth", fault.New(fault.Unavailable, "not ready"))
	if _, sent, err := c.Renew(t.Context(), refresh); err == nil || sent {
		t.Errorf("refused by the server: sent %v, %v", sent, err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, sent, err := c.Renew(t.Context(), refresh); err == nil || sent {
		t.Errorf("no server: sent %v, %v", sent, err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	s.LoseAnswer("auth.reauth")
	if _, sent, err := c.Renew(t.Context(), refresh); err == nil || !sent {
		t.Errorf("answer lost: sent %v, %v", sent, err)
	}
	// It was spent indeed.
	if _, _, err := c.Renew(t.Context(), refresh); fault.ReasonOf(err) != "reuse_detected" {
		t.Errorf("got %v", err)
	}
}

func TestCallsGoThroughTheTunnelAndAroundADeadOne(t *testing.T) {
	s := server(t, gatetest.Config{})
	c := dial(s)
	tokens, err := c.SignIn(t.Context(), alice())
	if err != nil {
		t.Fatal(err)
	}
	access := secret.New(tokens.AccessToken)
	key, _ := wgdev.GeneratePrivateKey()
	if _, err := c.Initiate(t.Context(), access, key.Public()); err != nil {
		t.Fatal(err)
	}
	from := []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32"), netip.MustParsePrefix("::1/128")}
	c.Enter(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Address().Port), from)
	if _, way, err := c.Heartbeat(t.Context(), access); err != nil || way != gate.Inside {
		t.Errorf("got %s, %v", way, err)
	}
	c.Enter(netip.MustParseAddrPort("127.0.0.1:1"), from) // nobody there
	if _, way, err := c.Heartbeat(t.Context(), access); err != nil || way != gate.Outside {
		t.Errorf("dead tunnel: got %s, %v", way, err)
	}
	c.Leave()
	if _, way, err := c.Heartbeat(t.Context(), access); err != nil || way != gate.Outside {
		t.Errorf("no tunnel: got %s, %v", way, err)
	}
}

func TestAnOldServerDoesNotKnowOfLaneStates(t *testing.T) {
	want := client.LaneStates{VPN: client.LaneState{State: "up"}, Tor: client.LaneState{State: "maintenance", Reason: "why", Exits: []string{"de"}, Strict: true}}
	for _, states := range []*client.LaneStates{nil, &want} {
		c := dial(server(t, gatetest.Config{LaneStates: states}))
		tokens, err := c.SignIn(t.Context(), alice())
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.LaneStates(t.Context(), secret.New(tokens.AccessToken))
		if states == nil {
			// Without a reason: that is how it differs from a session that is not open.
			if !errors.Is(err, fault.NotFound) || fault.ReasonOf(err) != "" {
				t.Errorf("an old server: %+v, %v", got, err)
			}
			continue
		}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v, %s", err, d)
		}
	}
}

func TestTheResolverRemembers(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.7")
	r := gate.NewResolver(0, map[string][]netip.Addr{"vpn.invalid": {addr}})
	r.Use([]netip.Addr{netip.MustParseAddr("127.0.0.1")}) // no name server there
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := r.Lookup(ctx, "vpn.invalid"); err != nil || len(got) != 1 || got[0] != addr {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := r.Lookup(ctx, "other.invalid"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	if got, err := r.Lookup(ctx, "::ffff:192.0.2.1"); err != nil || got[0].String() != "192.0.2.1" {
		t.Errorf("got %v, %v", got, err)
	}
}
