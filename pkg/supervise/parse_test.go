package supervise_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/supervise"
)

const fullDocument = `{
  "services": {
    "keys": {"cmd": ["/usr/bin/vpnd", "service", "keys"]},
    "gateway": {
      "cmd": ["/usr/bin/vpnd", "service", "gateway"], "user": "vpnd-gateway", "groups": ["ssl-cert", "500"],
      "cwd": "/var/lib/vpnd", "env": {"COLOUR": "blue"}, "enabled": false,
      "socket_path": "/run/vpnd/gateway.sock", "inherit": true, "socket_mode": "0660", "socket_owner": "root:vpnd-admin",
      "listen": ["tcp://[::]:4605", "tcp://:4606", "tcp://127.0.0.1:4607"], "capabilities": ["net_bind_service"],
      "heartbeat": {"kind": "json", "interval": "2s", "timeout": "1.5s", "grace": "10s", "misses": 3},
      "stop": {"timeout": "5s"}, "after": ["keys"]
    }
  }
}`

func TestParseReadsEveryField(t *testing.T) {
	got, err := supervise.Parse([]byte(fullDocument))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	second := supervise.Duration(time.Second)
	want := map[string]supervise.Spec{
		"keys": {Cmd: []string{"/usr/bin/vpnd", "service", "keys"}},
		"gateway": {
			Cmd: []string{"/usr/bin/vpnd", "service", "gateway"}, User: "vpnd-gateway", Groups: []string{"ssl-cert", "500"},
			Cwd: "/var/lib/vpnd", Env: map[string]string{"COLOUR": "blue"}, Enabled: &no,
			SocketPath: "/run/vpnd/gateway.sock", Inherit: true, SocketMode: "0660", SocketOwner: "root:vpnd-admin",
			Listen: []string{"tcp://[::]:4605", "tcp://:4606", "tcp://127.0.0.1:4607"}, Capabilities: []string{"net_bind_service"},
			Heartbeat: supervise.Heartbeat{Kind: "json", Interval: 2 * second, Timeout: second * 3 / 2, Grace: 10 * second, Misses: 3},
			Stop:      supervise.Stop{Timeout: 5 * second}, After: []string{"keys"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseReportsEveryProblemWithItsPath(t *testing.T) {
	document := `{"extra": 1, "services": {
	  "a": {"cmd": ["relative/path"], "colour": "blue", "enabled": "yes", "after": ["a", "zz"], "user": "a b",
	        "heartbeat": {"kind": "json", "interval": 5, "timeout": "soon", "misses": 1000, "grace": "2h"}},
	  "b": {"cmd": "true", "capabilities": ["fly"], "env": {"1X": "", "LISTEN_FDS": "3", "OK": 1}, "listen": ["tcp://localhost:1", "tcp://[::]:80"]},
	  "c": {"cmd": ["true"], "cwd": "x", "socket_path": "run/c.sock", "socket_mode": "999", "socket_owner": "a:b:c", "listen": ["tcp://:80"], "cmd": []},
	  "d": {"stop": {"timeout": "0s"}, "inherit": true, "user": null, "groups": [1]},
	  "E": {"cmd": [""]}, "f": []
	}}`
	_, err := supervise.Parse([]byte(document))
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.Invalid {
		t.Fatalf("error %v", err)
	}
	got := map[string]int{}
	for _, field := range f.Fields {
		got[field.Path]++
		if !strings.Contains(err.Error(), field.Path+": "+field.Message) {
			t.Errorf("the message leaves out %v", field)
		}
	}
	want := map[string]int{}
	for _, path := range []string{
		"extra", "services.a.cmd[0]", "services.a.colour", "services.a.enabled", "services.a.after[0]", "services.a.after[1]", "services.a.user",
		"services.a.heartbeat.kind", "services.a.heartbeat.interval", "services.a.heartbeat.timeout", "services.a.heartbeat.misses", "services.a.heartbeat.grace",
		"services.b.cmd", "services.b.capabilities[0]", "services.b.env.1X", "services.b.env.LISTEN_FDS", "services.b.env.OK", "services.b.listen[0]",
		"services.c.cmd", "services.c.cwd", "services.c.socket_path", "services.c.socket_mode", "services.c.socket_owner", "services.c.listen[0]",
		"services.d.cmd", "services.d.stop.timeout", "services.d.inherit", "services.d.user", "services.d.groups[0]",
		"services.E", "services.E.cmd", "services.f",
	} {
		want[path]++
	}
	want["services.c.socket_mode"]++ // malformed, and without effect here
	want["services.c.socket_owner"]++
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s\n%v", diff, err)
	}
}

func TestParseRefusesWhatIsNotADocument(t *testing.T) {
	for name, document := range map[string]string{
		"empty": "", "list": "[]", "number": "7", "null": "null", "cut": `{"services": {"a":`, "twice": `{} {}`,
		"not UTF-8": "{\"services\": {\"a\": {\"cmd\": [\"\xff\"]}}}", "long": strings.Repeat(" ", 2<<20),
	} {
		if _, err := supervise.Parse([]byte(document)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := supervise.Parse([]byte("{\n\"services\": {\n oops"))
	if err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("no line number: %v", err)
	}
}

func TestParseOverChangesOnlyWhatIsNamed(t *testing.T) {
	base := map[string]supervise.Spec{
		"keys":    {Cmd: []string{"/vpnd"}, User: "keys", Heartbeat: supervise.Heartbeat{Misses: 5}},
		"gateway": {Cmd: []string{"/vpnd"}, Env: map[string]string{"A": "1"}, After: []string{"keys"}},
	}
	got, err := supervise.ParseOver(base, []byte(`{"services": {
	  "keys": {"enabled": false, "heartbeat": {"interval": "1s"}}, "mine": {"cmd": ["/opt/mine"], "after": ["gateway"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := map[string]supervise.Spec{
		"keys": {Cmd: []string{"/vpnd"}, User: "keys", Enabled: &no,
			Heartbeat: supervise.Heartbeat{Misses: 5, Interval: supervise.Duration(time.Second)}},
		"gateway": {Cmd: []string{"/vpnd"}, Env: map[string]string{"A": "1"}, After: []string{"keys"}},
		"mine":    {Cmd: []string{"/opt/mine"}, After: []string{"gateway"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if base["keys"].Enabled != nil {
		t.Error("the base was changed")
	}
}

func TestValidateFindsACircle(t *testing.T) {
	s := func(after ...string) supervise.Spec { return supervise.Spec{Cmd: []string{"/x"}, After: after} }
	fields := supervise.Validate(map[string]supervise.Spec{"a": s("b"), "b": s("c"), "c": s("b"), "d": s("a")})
	if len(fields) != 1 || !strings.Contains(fields[0].Message, "b after c after b") {
		t.Errorf("%v", fields)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(fullDocument))
	f.Add([]byte(`{"services": {"a": {"cmd": ["x"], "cmd": null, "heartbeat": []}}}`))
	f.Add([]byte(`{"services": {"a": {"cmd": ["x"], "listen": ["tcp://[fe80::1%eth0]:1"], "user": "4294967295"}}}`))
	f.Add([]byte("{\"\": \"\\ud800\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		services, err := supervise.Parse(data)
		if err != nil {
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != fault.Invalid || len(e.Fields) == 0 {
				t.Fatalf("error without fields: %v", err)
			}
			return
		}
		// What was accepted can be written and read back as the same.
		again, err := json.Marshal(map[string]any{"services": services})
		if err != nil {
			t.Fatal(err)
		}
		back, err := supervise.Parse(again)
		if err != nil {
			t.Fatalf("%s\nbecame\n%s\nwhich is refused: %v", data, again, err)
		}
		first, _ := json.Marshal(services)
		second, _ := json.Marshal(back)
		if string(first) != string(second) {
			t.Fatalf("%s\nbecame\n%s", first, second)
		}
	})
}
