package bridges

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
)

// relay starts a bridge that speaks obfs4 too, and gives a line for each way.
func relay(t *testing.T, tor string) (plain, obfs4 string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	or, pt := freePort(t), freePort(t)
	torrc := fmt.Sprintf(`DataDirectory %s/data
BridgeRelay 1
ORPort %s
ExtORPort auto
SocksPort 0
AssumeReachable 1
PublishServerDescriptor 0
ExitPolicy reject *:*
DirAuthority none orport=9 v3ident=0000000000000000000000000000000000000001 127.0.0.1:9 0000000000000000000000000000000000000002
`, dir, or)
	program, err := exec.LookPath("obfs4proxy")
	if err == nil {
		torrc += "ServerTransportPlugin obfs4 exec " + program + "\nServerTransportListenAddr obfs4 " + pt + "\n"
	}
	if err := errors.Join(os.WriteFile(dir+"/torrc", []byte(torrc), 0o600), os.WriteFile(dir+"/defaults", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tor, "-f", dir+"/torrc", "--defaults-torrc", dir+"/defaults")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, "data", name))
		return string(data)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		f, line := strings.Fields(read("fingerprint")), read("pt_state/obfs4_bridgeline.txt")
		c, err := net.DialTimeout("tcp", or, time.Second)
		if err != nil || len(f) != 2 || program != "" && !strings.Contains(line, "iat-mode") {
			continue
		}
		_ = c.Close()
		if _, line, _ = strings.Cut(line, "\nBridge "); line != "" {
			obfs4 = strings.TrimSpace(strings.NewReplacer("<IP ADDRESS>:<PORT>", pt, "<FINGERPRINT>", f[1]).Replace(line))
		}
		return or + " " + f[1], obfs4
	}
	t.Fatal("the bridge did not come up in 30 s")
	return "", ""
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestReach(t *testing.T) {
	tor, err := exec.LookPath("tor")
	if err != nil {
		t.Skip("no tor here")
	}
	plain, obfs4 := relay(t, tor)
	host, _, _ := strings.Cut(plain, " ")
	dir, err := os.MkdirTemp("", "try")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := Load(filepath.Join(dir, "bridges.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, line string
		extra      []string
		ok         bool
		says       string
	}{
		{"plain", plain, nil, true, "answers"},
		{"without a fingerprint", host, nil, true, "answers"},
		{"obfs4", obfs4, nil, true, "answers"},
		{"nobody listens", freePort(t) + " " + fingerprint, nil, false, "stuck at 5 % (Connecting to a relay): Connection refused"},
		{"somebody else", host + " " + fingerprint, nil, false, "Unexpected identity"},
		{"a transport that nobody knows", "carrier " + plain, nil, false, "no program is known that speaks carrier"},
		{"tor does not start", freePort(t), []string{"NoSuchOption 1"}, false, "tor ended: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.line == "" {
				t.Skip("no obfs4proxy here")
			}
			v, err := b.Add(tc.line)
			if err != nil {
				t.Fatal(err)
			}
			r, err := b.Test(t.Context(), v.ID, TestOptions{Binary: tor, ExtraTorrc: tc.extra, Dir: dir})
			if err != nil || r.OK != tc.ok || !strings.Contains(r.Message, tc.says) {
				t.Errorf("%+v, %v; want %v, %q", r, err, tc.ok, tc.says)
			}
		})
	}
	first := b.List()[0].ID
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Test(ended, first, TestOptions{Binary: tor, Dir: dir}); !errors.Is(err, fault.Canceled) && !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := b.Test(t.Context(), "ffffffffffff", TestOptions{}); !errors.Is(err, fault.NotFound) {
		t.Errorf("no such bridge: %v", err)
	}
	b.trying.Lock()
	if _, err := b.Test(t.Context(), first, TestOptions{Binary: tor, Dir: dir}); !errors.Is(err, fault.Conflict) {
		t.Errorf("two at once: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
