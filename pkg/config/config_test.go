package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

func TestDefaultIsSoundAndPrintsAsItself(t *testing.T) {
	def := config.Default()
	if p := def.Validate(); len(p) > 0 {
		t.Fatalf("the default has problems: %v", p)
	}
	out, err := config.Print(def)
	if err != nil {
		t.Fatal(err)
	}
	back, err := config.Parse(out)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if diff := cmp.Diff(def, back, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("printed and read again (-want +got):\n%s", diff)
	}
}

func TestEveryProblemIsReportedAtOnceWithItsPath(t *testing.T) {
	_, err := config.Parse([]byte(`
[gateway]
listen = ["nowhere", "[::]:0"]
[auth]
access_ttl = "1s"
[auth.argon2]
threads = 0
[sessions]
heartbeat_ttl = "0s"
[lanes]
wireguard = "magic"
blocked_ports = [0]
[lanes.vpn]
interface = "way-too-long-for-linux"
ipv4 = "10.8.0.1/16"
mtu = 100
[lanes.tor]
ipv4 = "10.8.0.0/24"
port = 51820
[control]
admin_group = "Bad Group"
[log]
level = "loud"
[logs]
dirs = ["/var/log/vpnd", "here", "/var/log/vpnd/", "/var/lib/vpnd/logs/days"]
max_age = "1h"
max_size_mib = 1
slow_query = "0s"
query_time = "1h"
`))
	f := fault.From(err)
	if !errors.Is(err, fault.Invalid) {
		t.Fatalf("got %v", err)
	}
	got := map[string]bool{}
	for _, p := range f.Fields {
		got[p.Path] = true
	}
	if got["logs.dirs[0]"] {
		t.Error("logs.dirs[0] is sound")
	}
	for _, want := range []string{
		"gateway.listen[0]", "gateway.listen[1]", "auth.access_ttl", "auth.argon2.threads", "sessions.heartbeat_ttl",
		"lanes.wireguard", "lanes.blocked_ports[0]", "lanes.vpn.interface", "lanes.vpn.ipv4", "lanes.vpn.mtu",
		"lanes.tor.ipv4", "lanes.tor.port", "control.admin_group", "log.level",
		"logs.dirs[1]", "logs.dirs[2]", "logs.dirs[3]", "logs.max_age", "logs.max_size_mib", "logs.slow_query", "logs.query_time",
	} {
		if !got[want] {
			t.Errorf("%s is not reported in\n%v", want, err)
		}
	}
}

func TestUnknownKeysAreAllNamedWithTheirLine(t *testing.T) {
	_, err := config.Parse([]byte("[gateway]\nlisten = [\"[::]:4605\"]\nlissten = 1\n[lanes.vpm]\nport = 1\n"))
	if err == nil || !strings.Contains(err.Error(), "gateway.lissten: unknown key (line 3)") || !strings.Contains(err.Error(), "lanes.vpm") {
		t.Errorf("got %v", err)
	}
}

func TestAWrongTypeNamesKeyAndPlace(t *testing.T) {
	for _, text := range []string{"[lanes.vpn]\nport = \"x\"\n", "[lanes.vpn]\nport = 70000\n", "[lanes.vpn]\nipv4 = \"no\"\n", "[sessions]\nhard_ttl = \"soon\"\n"} {
		_, err := config.Parse([]byte(text))
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestDurationsMayBeDays(t *testing.T) {
	c, err := config.Parse([]byte("[sessions]\nhard_ttl = \"7d\"\n"))
	if err != nil || c.Sessions.HardTTL.D() != 7*24*time.Hour {
		t.Errorf("got %v, %v", c.Sessions.HardTTL.D(), err)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vpnd.toml")
	if _, err := config.Load(path); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "vpnd.toml") {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("broken file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	out, _ := config.Print(config.Default())
	f.Add(out)
	f.Add([]byte("[lanes.vpn]\nipv4 = \"10.0.0.0/8\"\n"))
	f.Add([]byte("[[gateway]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data)
		if err == nil {
			if p := c.Validate(); len(p) > 0 {
				t.Errorf("accepted with problems: %v", p)
			}
		} else if !errors.Is(err, fault.Invalid) {
			t.Errorf("not an input error: %v", err)
		}
	})
}
