//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
)

// foreign is a program that is not vpnd's: it binds its own socket and answers
// pings on it until its file says "deaf".
func foreign(socket, mood string) int {
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		if b, _ := os.ReadFile(mood); string(b) != "deaf" && strings.Contains(line, "ping") {
			fmt.Fprintln(c, `{"status":"pong"}`)
		}
		if b, _ := os.ReadFile(mood); string(b) != "deaf" {
			_ = c.Close()
		}
	}
}

// onServer writes a file on the server.
func (w *world) onServer(path string, v any) {
	w.t.Helper()
	data, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		data = string(b)
	}
	err := w.Machine(lab.Server).Do(func() error { return os.WriteFile(path, []byte(data), 0o755) })
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) service(name string) supervisor.Service {
	w.t.Helper()
	s, err := supervisor.Get.Call(w.t.Context(), w.control(), &supervisor.Ref{Service: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return *s
}

func TestAForeignProgramIsSupervisedLikeOurs(t *testing.T) {
	w := newWorld(t, 0, "")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	w.onServer("/run/programs/foreign", string(self))
	const socket, mood = "/run/foreign.sock", "/run/foreign.mood"
	services := filepath.Join(filepath.Dir(site.ConfigPath), "services.json")
	entry := map[string]any{
		"cmd": []string{"/run/programs/foreign", foreignArg, socket, mood}, "user": "", "socket_path": socket,
		"heartbeat": map[string]any{"interval": "100ms", "timeout": "200ms"},
	}
	before := w.pids()
	reload := func(s map[string]any) supervisor.Changes {
		t.Helper()
		w.onServer(services, map[string]any{"services": s})
		c, err := supervisor.Reload.Call(t.Context(), w.control(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return *c
	}
	if c := reload(map[string]any{"foreign": entry}); len(c.Started) != 1 || len(c.Restarted)+len(c.Stopped) != 0 {
		t.Errorf("adding a program: %+v", c)
	}
	w.eventuallyReady("foreign")
	first := w.service("foreign").PID

	w.onServer(mood, "deaf")
	eventually(t, 15*time.Second, func() error {
		if s := w.service("foreign"); s.PID == first || s.PID == 0 {
			return fmt.Errorf("it does not answer and is %s", s.State)
		}
		return nil
	})
	w.onServer(mood, "")
	eventually(t, 20*time.Second, func() error {
		if s := w.service("foreign"); s.State != "ready" {
			return fmt.Errorf("it answers again and is %s: %s", s.State, s.Reason)
		}
		return nil
	})
	if err := unix.Kill(w.service("foreign").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		if s := w.service("foreign"); s.State != "ready" || !strings.Contains(s.LastExit, "SIGKILL") {
			return fmt.Errorf("killed and now %s, last exit %q", s.State, s.LastExit)
		}
		return nil
	})
	entry["enabled"] = false
	if c := reload(map[string]any{"foreign": entry}); len(c.Stopped) != 1 || w.service("foreign").State != "disabled" {
		t.Errorf("disabling: %+v, %+v", c, w.service("foreign"))
	}
	reload(map[string]any{})
	w.ctl(3, "", "service", "get", "foreign")
	if after := w.pids(); !maps.Equal(before, after) {
		t.Errorf("services of ours were restarted: %v, then %v", before, after)
	}
}

func TestReloadAppliesOnlyWhatChanged(t *testing.T) {
	w := newWorld(t, 0, "")
	before := w.pids()
	for _, broken := range []string{"[gateway]\nlissten = []\n", "[lanes.vpn]\nport = 0\n", "garbage"} {
		if err := w.WriteConfig(w.Config() + cheap + broken); err != nil {
			t.Fatal(err)
		}
		if out := w.ctl(2, "", "service", "reload"); !strings.Contains(out, site.ConfigPath) {
			t.Errorf("the refusal does not name the file:\n%s", out)
		}
	}
	if err := w.WriteConfig(w.Config() + cheap + "[paths]\nrun = \"/run/elsewhere\"\n"); err != nil {
		t.Fatal(err)
	}
	w.ctl(5, "", "service", "reload")
	if after := w.pids(); !maps.Equal(before, after) {
		t.Fatalf("a reload that was refused changed %v to %v", before, after)
	}
	if err := w.WriteConfig(w.Config() + cheap + "[ipam]\nquarantine = \"1m\"\n"); err != nil {
		t.Fatal(err)
	}
	w.ctl(0, "", "service", "reload")
	after := w.pids()
	for name, pid := range before {
		if (after[name] == pid) == (name == "ipam") {
			t.Errorf("after a change of [ipam], %s has pid %d, had %d", name, after[name], pid)
		}
	}
	var st struct {
		Quarantine int `json:"quarantine"`
	}
	w.ctlJSON(&st, "ipam", "status")
	if st.Quarantine != 60 {
		t.Errorf("quarantine is %d s", st.Quarantine)
	}
}

func TestSIGTERMEndsEverythingButTheTunnels(t *testing.T) {
	w := newWorld(t, 0, "")
	began := time.Now()
	if err := unix.Kill(w.daemon.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.daemon.Ended():
	case <-time.After(15 * time.Second):
		t.Fatal("vpnd does not end")
	}
	t.Logf("ended after %s", time.Since(began).Round(time.Millisecond))
	left := w.pids()
	if len(left) != 2 || left["wg0"] == 0 || left["wg1"] == 0 {
		t.Errorf("left behind: %v, want wireguard-go of both lanes", left)
	}
	w.run(0, "", lab.Server, "vpnd", "teardown")
	if left := w.pids(); len(left) != 0 {
		t.Errorf("after teardown: %v", left)
	}
	w.start() // and again from nothing
}
