//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
)

// TestLaneTor is everything that needs a Tor network: one, because starting it
// takes a while.
func TestLaneTor(t *testing.T) {
	w := newTorWorld(t)
	for _, sub := range []struct {
		name string
		run  func(*testing.T, *torWorld)
	}{
		{"CarriesTrafficThroughTorOrNowhere", carriesTrafficThroughTorOrNowhere},
		{"StockTools", stockTools},
		{"ShortDNS", shortDNS},
		{"ExitChoicesAndIdentities", exitChoices},
		{"LeakTest", leakTests},
		{"Attacks", attacks},
		{"OpenConnectionsSurvive", openConnectionsSurvive},
		{"NothingLeavesButTor", nothingLeavesButTor},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.run(t, w.in(t)) })
	}
}

// torWorld is a world with a private Tor network, one client in lane tor, and
// the lane up.
type torWorld struct {
	*world
	network *tornet.Network
	exits   map[string]bool // what targets see
	config  string
}

// torState is the folder of the tor service, on the server.
const torState = "/var/lib/vpnd/tor"

func newTorWorld(t *testing.T) *torWorld {
	t.Helper()
	base, l := emptyWorld(t, 2)
	w := &torWorld{world: base, exits: map[string]bool{}}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var err error
	if w.network, err = tornet.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.network.Close() })
	for _, e := range w.network.Exits() {
		w.exits[e.V4.String()], w.exits[e.V6.String()] = true, true
	}
	quoted := make([]string, 0, 16)
	for _, line := range w.network.TorrcLines() {
		quoted = append(quoted, fmt.Sprintf("%q", line))
	}
	w.config = w.Config() + cheap + "\n[log]\nlevel = \"debug\"\n[tor]\nprobe_every = \"5s\"\nextra_torrc = [" + strings.Join(quoted, ", ") + "]\n"
	if err := w.WriteConfig(w.config); err != nil {
		t.Fatal(err)
	}
	// A disk of the service's own, for the test that fills it.
	err = w.Machine(lab.Server).Do(func() error {
		if err := os.MkdirAll(torState, 0o755); err != nil {
			return err
		}
		return unix.Mount("tmpfs", torState, "tmpfs", 0, "size=16m,mode=700")
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	w.createUser("alice")
	w.bootstrap()
	w.connect(laptop, "alice", "laptop")
	w.run(0, "", laptop, "vpn", "up", "--lane", "tor")
	return w
}

var laptop = lab.Client(1)

// in gives the world to a subtest.
func (w *torWorld) in(t *testing.T) *torWorld {
	outer := w.t
	w.t = t
	t.Cleanup(func() { w.t = outer })
	return w
}

// seesExit fetches a page of both families and wants an exit to be seen. A
// connection that was begun while service tor restarted may have been closed.
func (w *torWorld) seesExit() {
	w.t.Helper()
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		if seen := w.comes(laptop, target); !w.exits[seen] {
			w.t.Errorf("%s saw %q, which is no exit of %v", target, seen, w.exits)
		}
	}
}

// seenBy is the address that a page saw. It is an error when there was no page,
// or that of the lane's maintenance.
func (w *torWorld) seenBy(machine string, target netip.Addr) (string, error) {
	seen, err := w.get(machine, page(target, "/ip"))
	if err == nil && strings.Contains(seen, "<title>Tor lane: maintenance</title>") {
		err = errors.New("the lane is in maintenance")
	}
	return seen, err
}

// bootstrap waits for the lane. A client that asks the young network's only
// directory too early may get a part of what it needs and ask again much later:
// such a one begins anew.
func (w *world) bootstrap() {
	w.t.Helper()
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		err := w.Vpnctl(ctx, "tor", "up", "--wait", "--timeout", "20s").Run()
		cancel()
		if err == nil {
			return
		}
		if try == 5 {
			w.t.Fatalf("lane tor does not come up:\n%s", w.ctl(0, "", "tor", "status"))
		}
		w.ctl(0, "", "tor", "stop")
		if err := w.Machine(lab.Server).Do(func() error { return os.RemoveAll("/var/lib/vpnd/tor/data") }); err != nil {
			w.t.Fatal(err)
		}
		w.ctl(0, "", "tor", "start")
	}
}

func carriesTrafficThroughTorOrNowhere(t *testing.T, w *torWorld) {
	b := watchBorder(t, w)
	w.seesExit()
	if virtual, err := w.lookUp(laptop, w.network.Onion()); err != nil {
		t.Errorf("look up the onion name: %v", err)
	} else if seen, err := w.get(laptop, page(virtual, "/ip")); err != nil {
		t.Errorf("the onion page at %s: %q, %v", virtual, seen, err)
	}
	refusedAtOnce(t, w.world, laptop)

	// Maintenance: the page says why; the open connection is cut.
	line, err := w.openLine(laptop, netip.AddrPortFrom(lab.TargetV4, 7))
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	w.ctl(0, "", "tor", "maintenance", "--message", "back at <noon>")
	body, err := w.get(laptop, page(lab.TargetV4, "/"))
	if err != nil || !strings.Contains(body, "back at &lt;noon&gt;") {
		t.Errorf("the maintenance page: %q, %v", body, err)
	}
	if err := line.echo(5 * time.Second); err == nil {
		t.Error("a connection goes on in maintenance")
	}
	w.ctl(0, "", "tor", "down", "-y")
	if body, err := w.get(laptop, page(lab.TargetV4, "/")); err == nil {
		t.Errorf("a page answers although the lane is down: %q", body)
	}
	refusedAtOnce(t, w.world, laptop)
	w.ctl(0, "", "tor", "up", "--wait", "--timeout", "30s")
	w.seesExit()
	b.nothing(t, "while the wish changed")
}

// lookUp asks some resolver outside for an IPv4 address, over UDP and then over
// TCP, which must agree. Go's own resolver never asks for onion names.
func (w *world) lookUp(machine, name string) (netip.Addr, error) {
	q := question(name)
	var found [2]netip.Addr
	for i, network := range []string{"udp", "tcp"} {
		c, err := w.Machine(machine).DialContext(w.t.Context(), network, "198.51.100.53:53")
		if err != nil {
			return netip.Addr{}, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		msg := q
		if network == "tcp" {
			msg = append([]byte{0, byte(len(q))}, q...)
		}
		if _, err := c.Write(msg); err != nil {
			return netip.Addr{}, err
		}
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		if network == "tcp" && err == nil && n == 2 { // the length came alone
			n, err = c.Read(buf)
		}
		if err != nil || n < len(q)+4 {
			return netip.Addr{}, fmt.Errorf("%s: %d bytes, %v", network, n, err)
		}
		found[i] = netip.AddrFrom4([4]byte(buf[n-4 : n]))
	}
	if found[0] != found[1] {
		return found[0], fmt.Errorf("udp says %s, tcp says %s", found[0], found[1])
	}
	return found[0], nil
}

// question asks for the IPv4 address of a name.
func question(name string) []byte {
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

// refusedAtOnce sends what lane tor never carries and wants to be told so.
func refusedAtOnce(t *testing.T, w *world, machine string) {
	t.Helper()
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		c, err := w.Machine(machine).DialContext(t.Context(), "udp", netip.AddrPortFrom(target, 443).String())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = c.SetDeadline(began.Add(5 * time.Second))
		_, _ = c.Write([]byte("quic?"))
		_, err = c.Read(make([]byte, 10))
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			t.Errorf("udp 443 to %s: %v after %s, want a refusal", target, err, time.Since(began))
		}
		_ = c.Close()
	}
}
