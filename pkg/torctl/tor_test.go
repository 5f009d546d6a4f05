package torctl_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

func TestAgainstTor(t *testing.T) {
	const bin = "/usr/sbin/tor"
	if _, err := os.Stat(bin); err != nil {
		t.Skip("no tor here")
	}
	dir, err := os.MkdirTemp("", "tor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	torrc := filepath.Join(dir, "torrc")
	if err := os.WriteFile(torrc, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	cmd := exec.Command(bin, "-f", torrc, "--defaults-torrc", torrc, "--DisableNetwork", "1", "--SocksPort", "0",
		"--DataDirectory", filepath.Join(dir, "data"), "--ControlSocket", sock, "--CookieAuthentication", "1", "--Log", "notice file "+filepath.Join(dir, "log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var c *torctl.Client
	for end := time.Now().Add(20 * time.Second); ; {
		if c, err = torctl.Dial(t.Context(), sock); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // the socket appears when tor pleases
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if pid, err := c.PID(ctx); err != nil || pid != cmd.Process.Pid {
		t.Errorf("pid %d, %v", pid, err)
	}
	if v, err := c.Version(ctx); err != nil || !strings.HasPrefix(v, "0.") {
		t.Errorf("version %q, %v", v, err)
	}
	if b, err := c.Bootstrap(ctx); err != nil || b.Percent != 0 || b.Tag == "" {
		t.Errorf("%+v, %v", b, err)
	}
	if h, err := c.Health(ctx); err != nil || h.CircuitEstablished {
		t.Errorf("%+v, %v", h, err)
	}
	_, err1 := c.Circuits(ctx)
	_, err2 := c.Streams(ctx)
	_, err3 := c.Relays(ctx)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Error(err)
	}
	if v, err := c.GetConf(ctx, "enforcedistinctsubnets"); err != nil || !slices.Equal(v, []string{"1"}) {
		t.Errorf("option: %q, %v", v, err)
	}
	if _, err := c.GetConf(ctx, "NoSuchOption"); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if cons, err := c.Consensus(ctx); err != nil || len(cons.Relays()) != 0 {
		t.Errorf("consensus: %v, %v", cons, err)
	}
	if m, err := c.AddressMappings(ctx); err != nil || m != nil {
		t.Errorf("mappings: %v, %v", m, err)
	}
	if a, err := c.Address(ctx); err == nil {
		t.Errorf("address %v of a tor without a network", a)
	}
	cc, err := c.Country(ctx, netip.MustParseAddr("8.8.8.8"))
	t.Logf("country %q, %v", cc, err)
	ev, err := c.Events(ctx, "CONF_CHANGED", "SIGNAL")
	if err != nil {
		t.Fatal(err)
	}
	const value = `100% "x" \y # z`
	if err := c.SetConf(ctx, [2]string{"ContactInfo", value}); err != nil {
		t.Fatal(err)
	}
	e := next(t, ev)
	if len(e.Lines) != 1 || e.Lines[0] != `ContactInfo="100% \"x\" \\y # z"` {
		t.Errorf("tor read %q", e.Lines)
	}
	if err := c.CloseCircuit(ctx, "99"); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := c.SetConf(ctx, [2]string{"NoSuchOption", "1"}); err == nil || c.Err() != nil {
		t.Error(err, c.Err())
	}
	if err := c.Signal(ctx, "NEWNYM"); err != nil {
		t.Error(err)
	}
	if err := c.Signal(ctx, "HALT"); err != nil {
		t.Log(err)
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Error("tor's end went unnoticed")
	}
}
