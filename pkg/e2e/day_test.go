//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
)

func TestAUserReachesTheInternetThroughLaneVPN(t *testing.T) {
	w := newWorld(t, 1, "")
	w.createUser("alice")
	laptop := lab.Client(1)
	w.connect(laptop, "alice", "laptop")

	server := w.Machine(lab.Server)
	for url, want := range map[string]string{
		page(lab.TargetV4, "/ip"): server.IPv4().String(),
		page(lab.TargetV6, "/ip"): server.IPv6().String(),
		"http://target.test/ip":   "", // found by name, by either family
	} {
		got, err := w.get(laptop, url)
		if err != nil {
			t.Fatalf("get %s: %v", url, err)
		}
		if want != "" && got != want {
			t.Errorf("%s saw %s, want %s", url, got, want)
		}
	}
	if _, err := w.get(laptop, page(lab.TargetV4, "/bytes?n=5000000")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, func() error {
		l, err := sessions.List.Call(t.Context(), w.control(), &sessions.ListRequest{Limit: 10})
		if err != nil {
			return err
		}
		if len(l.Items) != 1 || l.Items[0].VPNTxBytes < 5_000_000 || l.Items[0].State != sessions.Online || l.Items[0].LastHandshake == nil {
			return fmt.Errorf("session list shows %+v", l.Items)
		}
		return nil
	})
}

func TestKilledSuspendedAndDeletedMeanGoneBeforeTheCommandReturns(t *testing.T) {
	w := newWorld(t, 1, "")
	for _, how := range []struct {
		name   string
		end    []string
		beat   fault.Code // of a heartbeat with the unexpired access token
		back   fault.Code // of a new initiate with it; "" when it may connect again
		reauth fault.Code
	}{
		{"killed", []string{"session", "kill", "killed"}, fault.Conflict, "", ""},
		{"suspended", []string{"user", "suspend", "suspended"}, fault.Denied, fault.Denied, fault.Denied},
		{"deleted", []string{"user", "delete", "deleted", "-y", "--accept-risk=destroy-data,drop-sessions"}, fault.Unauthenticated, fault.Unauthenticated, fault.Unauthenticated},
	} {
		t.Run(how.name, func(t *testing.T) {
			w := &world{Site: w.Site, t: t, daemon: w.daemon}
			w.createUser(how.name)
			c := w.api(lab.Client(1))
			if err := c.Login(t.Context(), how.name, password, "laptop", ""); err != nil {
				t.Fatal(err)
			}
			if err := c.NewKey(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Initiate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(w.peers("wg0")) != 1 || len(w.peers("wg1")) != 1 {
				t.Fatal("the peer is not there")
			}
			w.ctl(0, "", how.end...)
			for _, iface := range []string{"wg0", "wg1"} {
				if p := w.peers(iface); len(p) != 0 {
					t.Errorf("%s still has a peer when the command has returned: %v", iface, p)
				}
			}
			if _, err := c.Beat(t.Context()); fault.CodeOf(err) != how.beat {
				t.Errorf("heartbeat with the unexpired token: %v, want %s", err, how.beat)
			}
			_, err := c.Initiate(t.Context())
			if fault.CodeOf(err) != how.back {
				t.Errorf("initiate with the unexpired token: %v, want %q", err, how.back)
			}
			if err := c.Reauth(t.Context()); fault.CodeOf(err) != how.reauth {
				t.Errorf("refresh: %v, want %q", err, how.reauth)
			}
			if how.back == "" {
				w.ctl(0, "", "session", "kill", how.name)
			}
		})
	}
}

func TestASpentRefreshTokenClosesTheSession(t *testing.T) {
	w := newWorld(t, 1, "")
	w.createUser("alice")
	c := w.api(lab.Client(1))
	if err := c.Login(t.Context(), "alice", password, "laptop", ""); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.NewKey(), func() error { _, err := c.Initiate(t.Context()); return err }()); err != nil {
		t.Fatal(err)
	}
	stolen := c.Tokens
	if err := c.Reauth(t.Context()); err != nil {
		t.Fatal(err)
	}
	thief := w.api(lab.Client(1))
	thief.Tokens = stolen
	if err := thief.Reauth(t.Context()); fault.ReasonOf(err) != "reuse_detected" {
		t.Fatalf("a spent token: %v, want reuse_detected", err)
	}
	if p := w.peers("wg0"); len(p) != 0 {
		t.Errorf("the device still has its peer: %v", p)
	}
	if err := c.Reauth(t.Context()); fault.CodeOf(err) != fault.Unauthenticated {
		t.Errorf("the family's newest token: %v, want unauthenticated", err)
	}
}

func TestTheControlAPIAnswersOverHTTP(t *testing.T) {
	w := newWorld(t, 0, "")
	w.createUser("alice")
	get := func(path string) []byte {
		t.Helper()
		tr := &http.Transport{DialContext: w.dialControl}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("http://vpnd" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("GET %s: %s %v\n%s", path, res.Status, err, b)
		}
		return b
	}
	if b := get("/v1/users"); !strings.Contains(string(b), `"username":"alice"`) {
		t.Errorf("/v1/users: %s", b)
	}
	var spec struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(get("/openapi.json"), &spec); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(spec.OpenAPI, "3.1") || len(spec.Paths) < 25 {
		t.Errorf("openapi %q with %d paths", spec.OpenAPI, len(spec.Paths))
	}
}

func TestTheClientAPIRefusesPolitely(t *testing.T) {
	w := newWorld(t, 1, "")
	c := w.api(lab.Client(1))
	if _, err := client.GetHealth.Call(t.Context(), c.Conn, nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		call func() error
		want fault.Code
	}{
		{"no token", func() error { _, err := c.Beat(t.Context()); return err }, fault.Unauthenticated},
		{"bad refresh token", func() error { c.Tokens.RefreshToken = "x"; return c.Reauth(t.Context()) }, fault.Unauthenticated},
		{"unknown user", func() error { return c.Login(t.Context(), "nobody", password, "d", "") }, fault.Unauthenticated},
		{"internal operation", func() error {
			_, err := sessions.List.Call(t.Context(), c.Conn, &sessions.ListRequest{Limit: 1})
			return err
		}, fault.NotFound},
	} {
		if err := tc.call(); fault.CodeOf(err) != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}

// TestTheClientTellsTheTruthAfterAKill: the server has removed the peer, and
// the client's own numbers still look well.
func TestTheClientTellsTheTruthAfterAKill(t *testing.T) {
	w := newWorld(t, 1, "")
	w.createUser("alice")
	laptop := lab.Client(1)
	w.connect(laptop, "alice", "laptop")
	w.ctl(0, "", "session", "kill", "alice")
	status := func() (state, reason string) {
		var st struct {
			Tunnel struct{ State, Reason string }
		}
		out := w.run(0, "", laptop, "vpn", "status", "-o", "json")
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return st.Tunnel.State, st.Tunnel.Reason
	}
	time.Sleep(3 * time.Second) // a heartbeat younger than that counts
	if state, reason := status(); state != "closed" || reason != "killed" {
		t.Errorf("after the kill the client says %s (%s)", state, reason)
	}
	if _, err := w.get(laptop, page(lab.TargetV4, "/ip")); err == nil {
		t.Error("traffic left in the clear after the kill")
	}
	w.run(0, "", laptop, "vpn", "up")
	if state, _ := status(); state != "up" {
		t.Errorf("after 'vpn up' the client says %s", state)
	}
	w.run(0, "", laptop, "vpn", "down")
	if seen, err := w.get(laptop, page(lab.TargetV4, "/ip")); err != nil || seen != w.Machine(laptop).IPv4().String() {
		t.Errorf("after 'vpn down' the page saw %s, %v", seen, err)
	}
}
