//go:build linux

package torctl_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
	"vpnd/pkg/torctl"
	"vpnd/pkg/torpath"
)

// A path chosen from what a real tor tells becomes a circuit of that tor.
func TestPathsOfARealNetwork(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("a tor network needs root and a quarter of a minute")
	}
	if _, err := exec.LookPath("tor-gencert"); err != nil {
		t.Skip("no tor here")
	}
	l, err := lab.New(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	n, err := tornet.Start(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	dir, err := os.MkdirTemp("", "tor")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	torrc, sock := filepath.Join(dir, "torrc"), filepath.Join(dir, "s")
	lines := append(n.TorrcLines(), "DataDirectory "+filepath.Join(dir, "data"), "Log notice file "+filepath.Join(dir, "log"),
		"SocksPort 127.0.0.1:9100", "ControlSocket "+sock, "CookieAuthentication 1")
	if err := os.WriteFile(torrc, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.Machine(lab.Server).Command("tor", "--quiet", "-f", torrc)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var c *torctl.Client
	until(t, ctx, func() bool { c, err = torctl.Dial(ctx, sock); return err == nil })
	defer c.Close()
	until(t, ctx, func() bool { b, err := c.Bootstrap(ctx); return err == nil && b.Percent == 100 })

	cons, err := c.Consensus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	relays, err := c.Relays(ctx)
	if err != nil || len(relays) != 4 || len(cons.Relays()) != 4 {
		t.Fatalf("%+v, %v", relays, err)
	}
	for _, r := range relays {
		isExit := strings.HasPrefix(r.Nickname, "exit")
		if !r.Described || r.Ports.Allows(80) != isExit || r.Ports6.Allows(80) != isExit {
			t.Errorf("%+v", r)
		}
	}
	guards, err := c.EntryGuards(ctx)
	if err != nil || len(guards) == 0 || guards[0].State != "up" {
		t.Fatal(guards, err)
	}
	events, err := c.Events(ctx, "CIRC")
	if err != nil {
		t.Fatal(err)
	}
	built := 0
	for _, x := range n.Exits() {
		choice := torpath.Exits{Countries: []string{x.Country}}
		if got := cons.Usable(choice); got != 1 {
			t.Errorf("%d exits in %s", got, x.Country)
		}
		path, err := cons.Path([]string{guards[0].Fingerprint}, choice, torpath.Target{IPv4: true, Port: 80}, nil, rand.New(rand.NewPCG(1, 1)))
		if guards[0].Fingerprint == x.Fingerprint { // the only exit of its country cannot be the guard too
			if !errors.Is(err, torpath.ErrNoPath) {
				t.Errorf("%v, %v", path, err)
			}
			continue
		}
		if err != nil || path[2] != x.Fingerprint {
			t.Fatal(path, err)
		}
		id, err := c.ExtendCircuit(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		for status := ""; status != "BUILT"; {
			k, ok := next(t, events).Circuit()
			if !ok || k.ID != id {
				continue
			}
			if status = k.Status; status == "FAILED" || status == "CLOSED" {
				t.Fatalf("%+v", k)
			}
		}
		built++
	}
	if built == 0 {
		t.Error("no circuit was built")
	}
	if _, err := c.AddressMappings(ctx); err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, ctx context.Context, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatal("in vain")
		case <-time.After(50 * time.Millisecond): // tor tells nobody before it listens
		}
	}
}
