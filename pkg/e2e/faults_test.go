//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/e2e/apiclient"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
)

// signedIn is a client with a session.
func (w *world) signedIn(user, device string) *apiclient.Client {
	w.t.Helper()
	c := w.api(lab.Client(1))
	if err := c.Login(w.t.Context(), user, password, device, ""); err != nil {
		w.t.Fatal(err)
	}
	if err := c.NewKey(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := c.Initiate(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// pids gives the process of every service.
func (w *world) pids() map[string]int {
	w.t.Helper()
	procs, err := w.Processes()
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]int{}
	for _, p := range procs {
		if len(p.Args) >= 3 && p.Machine == lab.Server && (p.Args[1] == "service" || p.Args[1] == "wireguard") {
			out[p.Args[2]] = p.PID
		}
	}
	return out
}

func TestCallsBegunAfterAKillWaitAndSucceed(t *testing.T) {
	w := newWorld(t, 1, "")
	w.createUser("alice")
	c := w.signedIn("alice", "laptop")
	ctl := w.control()
	calls := map[string]func() error{
		"control": func() error { _, err := users.Get.Call(t.Context(), ctl, &users.Ref{User: "alice"}); return err },
		"gateway": func() error { _, err := c.Beat(t.Context()); return err },
		"keys": func() error {
			return w.api(lab.Client(1)).Login(t.Context(), "alice", password, "laptop", c.Tokens.DeviceID)
		},
		"auth":     func() error { return c.Reauth(t.Context()) },
		"users":    func() error { _, err := users.Get.Call(t.Context(), ctl, &users.Ref{User: "alice"}); return err },
		"ipam":     func() error { _, err := ipam.Status.Call(t.Context(), ctl, nil); return err },
		"sessions": func() error { _, err := c.Initiate(t.Context()); return err },
		"lanes": func() error {
			if err := c.NewKey(); err != nil {
				return err
			}
			_, err := c.Initiate(t.Context())
			return err
		},
	}
	for range 3 {
		for name, call := range calls {
			if err := c.Login(t.Context(), "alice", password, "laptop", c.Tokens.DeviceID); err != nil {
				t.Fatalf("sign in before killing %s: %v", name, err)
			}
			if err := unix.Kill(w.pids()[name], unix.SIGKILL); err != nil {
				t.Fatalf("kill %s: %v", name, err)
			}
			if err := call(); err != nil {
				t.Errorf("call begun after %s was killed: %v", name, err)
			}
			w.eventuallyReady(name)
		}
	}
}

func (w *world) eventuallyReady(name string) {
	w.t.Helper()
	eventually(w.t, 10*time.Second, func() error {
		s, err := supervisor.Get.Call(w.t.Context(), w.control(), &supervisor.Ref{Service: name})
		if err == nil && s.State != "ready" {
			err = fmt.Errorf("%s is %s: %s", name, s.State, s.Reason)
		}
		return err
	})
}

func TestWireguardGoIsRestoredAfterAKill(t *testing.T) {
	w := newWorld(t, 1, "")
	w.createUser("alice")
	w.connect(lab.Client(1), "alice", "laptop")
	eventually(t, 15*time.Second, func() error { // the endpoint has been noticed
		s, err := sessions.Get.Call(t.Context(), w.control(), &sessions.Ref{Session: "alice"})
		if err == nil && s.Endpoint == "" {
			err = errors.New("no endpoint yet")
		}
		return err
	})
	if err := unix.Kill(w.pids()["wg0"], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, 12*time.Second, func() error { _, err := w.get(lab.Client(1), page(lab.TargetV4, "/ip")); return err })
	t.Logf("a page again after %s", time.Since(began).Round(time.Millisecond))
}

func TestAFullDiskIsSaidAndForgotten(t *testing.T) {
	l, err := lab.New(t.Context(), lab.Options{Clients: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLab(t, l) })
	w := &world{t: t, Site: mustSite(t, l)}
	if err := w.WriteConfig(w.Config() + cheap); err != nil {
		t.Fatal(err)
	}
	const state = "/var/lib/vpnd"
	err = w.Machine(lab.Server).Do(func() error {
		if err := os.MkdirAll(state, 0o755); err != nil {
			return err
		}
		return unix.Mount("tmpfs", state, "tmpfs", 0, "size=6m,mode=755")
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	w.createUser("alice")
	c := w.signedIn("alice", "laptop")

	filler := filepath.Join(state, "filler")
	err = w.Machine(lab.Server).Do(func() error {
		f, err := os.Create(filler)
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, 4096)
		for {
			if _, err := f.Write(buf); err != nil {
				return nil // full
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	// Small writes may still fit into what is allocated; not for long.
	eventually(t, 20*time.Second, func() error {
		req := &users.CreateRequest{}
		req.Body.Username, req.Body.Password = fmt.Sprintf("u%d", time.Now().UnixNano()), password
		_, err := users.Create.Call(t.Context(), w.control(), req)
		if err == nil {
			return errors.New("accounts can still be created on a full disk")
		}
		if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error()+fault.From(err).Hint, "space") {
			t.Fatalf("full disk: %v (hint %q)", err, fault.From(err).Hint)
		}
		return nil
	})
	if _, err := c.Beat(t.Context()); err != nil {
		t.Errorf("heartbeat while the disk is full: %v", err)
	}
	if _, err := users.ListUsers.Call(t.Context(), w.control(), &users.ListRequest{Limit: 10}); err != nil {
		t.Errorf("reading while the disk is full: %v", err)
	}
	if err := w.Machine(lab.Server).Do(func() error { return os.Remove(filler) }); err != nil {
		t.Fatal(err)
	}
	w.createUser("bob")
	if err := c.NewKey(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Initiate(t.Context()); err != nil {
		t.Errorf("connect after space returned: %v", err)
	}
	w.eventuallyReady("users")
}

func TestAFullPoolSaysHowToEnlargeIt(t *testing.T) {
	w := newWorld(t, 1, "[lanes.tor]\nipv4 = \"10.9.0.0/29\"\n")
	w.createUser("alice")
	for _, device := range []string{"first", "second", "third", "fourth"} { // the gateway and the leak test have the others
		w.signedIn("alice", device)
	}
	c := w.api(lab.Client(1))
	if err := c.Login(t.Context(), "alice", password, "fifth", ""); err != nil {
		t.Fatal(err)
	}
	if err := c.NewKey(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Initiate(t.Context())
	if !errors.Is(err, fault.Exhausted) || !strings.Contains(fault.From(err).Hint, "ipv4 under [lanes.tor]") {
		t.Errorf("a fifth device in a /29: %v (hint %q)", err, fault.From(err).Hint)
	}
	// Nothing of the refused device is left.
	if err := w.agreement(); err != nil {
		t.Error(err)
	}
	w.ctl(0, "", "device", "delete", "alice/first", "-y")
}

func TestEveryChangeIsInTheAuditTrail(t *testing.T) {
	w := newWorld(t, 0, "")
	w.createUser("alice")
	w.ctl(0, "", "user", "suspend", "alice")
	w.ctl(3, "", "user", "suspend", "nobody")
	l, err := control.Audit.Call(t.Context(), w.control(), &control.AuditRequest{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"user.suspend nobody not_found", "user.suspend alice ok", "user.create alice ok"}
	for i, line := range want {
		if i >= len(l.Items) {
			t.Fatalf("only %d entries", len(l.Items))
		}
		e := l.Items[i]
		got := strings.Join([]string{e.Op, e.Target, e.Result}, " ")
		if got != line && !(e.Op == "user.create" && e.Target == "") || e.Who != "root" || e.PID == 0 || e.RequestID == "" {
			t.Errorf("entry %d: %q by %q (%+v), want %q by root", i, got, e.Who, e, line)
		}
	}
}
