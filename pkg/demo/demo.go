//go:build linux

// Package demo shows vpnd at work: it builds a lab, starts vpnd in it and plays
// the first day of an operator and three devices in both lanes, every command
// typed as a person would type it. It owns the story; it fails when a scene does not end
// as told. One Run at a time.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/lab/tornet"
)

// Options say how to play.
type Options struct {
	Bin     string    // folder of vpnd, vpnctl and vpn
	Targets []string  // argv that ends up in lab.ServeTargets; the lab's id is appended
	Keep    bool      // leave everything up
	Out     io.Writer // where the story is told
	Color   bool
}

// clients are the laptop and the phone of alice and the tablet of bob.
const clients = 3

// targets are the page's addresses.
var targets = [...]netip.Addr{lab.TargetV4, lab.TargetV6}

const password = "correct horse battery staple"

// story is a demo that is being told.
type story struct {
	Options
	*site.Site
	tor   *tornet.Network
	ctx   context.Context
	scene int
	began time.Time
}

// Run plays the demo. Whatever happens, nothing is left behind unless Keep.
func Run(ctx context.Context, o Options) (err error) {
	s := &story{Options: o, ctx: ctx, began: time.Now()}
	s.title("A server, three clients and an internet, in network namespaces")
	l, err := lab.New(ctx, lab.Options{Clients: clients, TargetCommand: o.Targets})
	if err != nil {
		return err
	}
	defer func() {
		if o.Keep && err == nil {
			s.keepHint()
			return
		}
		if err != nil {
			s.say("failed: %v", err)
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		if cerr := s.cleanUp(clean, l); err == nil {
			err = cerr
		}
	}()
	if s.Site, err = site.New(l, o.Bin); err != nil {
		return err
	}
	s.topology()
	if err := s.torNetwork(l); err != nil {
		return err
	}
	for _, scene := range []func() error{
		s.start, s.bootstrap, s.users, s.signIn, s.browse, s.look,
		s.torLane, s.onion, s.exitCountry, s.newIdentity, s.leakTest, s.maintenance,
		s.kill, s.suspend, s.logs,
	} {
		if err := scene(); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) topology() {
	s.say("lab %s", s.ID())
	for _, name := range s.Names() {
		m := s.Machine(name)
		s.say("  %-9s %-15s %s", name, m.IPv4(), m.IPv6())
	}
	s.say("  web page at http://%s and http://[%s], says whom it sees", lab.TargetV4, lab.TargetV6)
}

func (s *story) start() error {
	s.title("The operator starts vpnd")
	if err := s.WriteConfig(s.Config() + site.TorConfig(s.tor)); err != nil {
		return err
	}
	began := time.Now()
	s.prompt(lab.Server, "vpnd run &")
	if _, err := s.Site.Start(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	if err := s.WaitReady(wait); err != nil {
		return err
	}
	s.say("every service ready after %d ms", time.Since(began).Milliseconds())
	return nil
}

func (s *story) users() error {
	s.title("Two users")
	for _, name := range []string{"alice", "bob"} {
		if err := s.run(lab.Server, password, "vpnctl", "user", "create", name, "--email", name+"@example.test", "--password-stdin"); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) signIn() error {
	s.title("Three devices sign in and connect")
	status, err := s.Vpnctl(s.ctx, "status", "-o", "json").Output()
	if err != nil {
		return err
	}
	pin := between(string(status), `"pin": "`, `"`)
	url := "https://" + s.Machine(lab.Server).IPv4().String()
	for i, d := range [clients]struct{ user, name string }{{"alice", "laptop"}, {"alice", "phone"}, {"bob", "tablet"}} {
		m := lab.Client(i + 1)
		if err := s.run(m, password, "vpn", "login", url, "--pin", pin, "--user", d.user, "--password-stdin", "--device", d.name); err != nil {
			return err
		}
		if err := s.run(m, "", "vpn", "up"); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) browse() error {
	s.title("The internet, through lane vpn")
	laptop := lab.Client(1)
	if err := s.seeServer(laptop); err != nil {
		return err
	}
	s.say("the page sees the server, not the laptop's %s", s.Machine(laptop).IPv4())
	const url = "http://target.test/bytes?n=20000000"
	s.prompt(laptop, "get "+url)
	p, err := s.fetch(laptop, url, "")
	if err != nil {
		return err
	}
	s.say("%d bytes, found by name through the lane's resolver", len(p.body))
	if len(p.body) != 20_000_000 {
		return fmt.Errorf("%d bytes came with status %d, not 20000000", len(p.body), p.status)
	}
	return nil
}

// seeServer fetches a page of both families and wants it to see the server.
func (s *story) seeServer(machine string) error {
	own := s.Machine(lab.Server)
	for i, target := range targets {
		seen, err := s.seenBy(machine, target)
		if err != nil {
			return err
		}
		if want := []netip.Addr{own.IPv4(), own.IPv6()}[i].String(); seen != want {
			return fmt.Errorf("the page saw %s, not the server's %s", seen, want)
		}
	}
	return nil
}

func (s *story) look() error {
	s.title("The operator looks")
	time.Sleep(2500 * time.Millisecond) // counters are read every two seconds
	if err := s.run(lab.Server, "", "vpnctl", "status"); err != nil {
		return err
	}
	return s.run(lab.Server, "", "vpnctl", "session", "list", "-o", "wide")
}

func (s *story) kill() error {
	s.title("One session is killed: its traffic stops at once, the other's goes on")
	killed, err := s.ping(lab.Client(2))
	if err != nil {
		return err
	}
	other, err := s.ping(lab.Client(1))
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	if err := s.run(lab.Server, "", "vpnctl", "session", "kill", "alice/phone"); err != nil {
		return err
	}
	// Only these pings are surely of after the kill: an answer to an earlier one
	// may have come before and be read now.
	after, err := s.ping(lab.Client(2))
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	k, o := killed.Stop(), other.Stop()
	a := after.Stop()
	s.say("phone:  %d replies while connected, %d to %d pings after the kill returned", k.Received, a.Received, a.Sent)
	s.say("laptop: %d pings, %d lost", o.Sent, o.Lost)
	switch {
	case k.Received == 0 || o.Received == 0:
		return errors.New("the devices were not connected")
	case a.Sent == 0 || a.Received != 0:
		return errors.New("the killed session still carried packets")
	case o.Lost > 0:
		return errors.New("the other session lost packets")
	}
	return nil
}

func (s *story) suspend() error {
	s.title("The user is suspended: gone everywhere, and refused")
	if err := s.run(lab.Server, "", "vpnctl", "user", "suspend", "alice"); err != nil {
		return err
	}
	if err := s.run(lab.Server, "", "vpnctl", "session", "history"); err != nil {
		return err
	}
	open, err := s.Vpnctl(s.ctx, "session", "list").Output()
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	if list := strings.TrimSpace(string(open)); !strings.HasPrefix(list, "bob/tablet\t") || strings.Contains(list, "\n") {
		return fmt.Errorf("bob's tablet alone should be online, not:\n%s", list)
	}
	url := "https://" + s.Machine(lab.Server).IPv4().String()
	err = s.run(lab.Client(2), password, "vpn", "login", url, "--user", "alice", "--password-stdin")
	if err == nil {
		return errors.New("a suspended user could sign in")
	}
	s.say("exit status %d: not allowed", site.ExitStatus(errors.Unwrap(err)))
	return nil
}

func (s *story) cleanUp(ctx context.Context, l *lab.Lab) error {
	s.title("Everything is removed")
	if s.Site != nil {
		for i := range clients {
			_ = s.Vpn(ctx, lab.Client(i+1), "down").Run() // the lab ends it anyway
		}
	}
	if err := l.Close(ctx); err != nil {
		return err
	}
	s.say("done in %.1f s; nothing of this machine's own network was touched", time.Since(s.began).Seconds())
	return nil
}

func (s *story) keepHint() {
	s.title("The lab is still up")
	s.say("Type, for example:\n")
	id := s.ID()
	for _, c := range [][2]string{
		{"vpnctl lab exec " + id + " server -- vpnctl status", "the operator's view"},
		{"vpnctl lab exec " + id + " server -- vpnctl user activate alice", "let alice in again"},
		{"vpnctl lab exec " + id + " client1 -- vpn up", "connect the laptop"},
		{"vpnctl lab exec " + id + " client1 -- vpn status", "the user's view"},
		{"vpnctl lab exec " + id + " client1 -- vpn lane tor", "go on through Tor"},
		{"vpnctl lab exec " + id + " client1 -- curl http://" + lab.TargetV4.String() + "/ip", "whom a page sees"},
		{"vpnctl lab exec " + id + " server -- vpnctl tor circuit list", "the relays on the way"},
		{"vpnctl lab exec " + id + " server -- vpnctl tor newid --user alice", "other relays from now on"},
		{"vpnctl lab exec " + id + " server -- vpnctl logs -f user=alice", "her log, as it grows"},
		{"vpnctl lab exec " + id + " client1", "a shell on the laptop"},
		{"vpnctl lab down " + id, "remove everything"},
	} {
		s.say("  %s/%-62s # %s", s.Bin, c[0], c[1])
	}
}

// between gives what stands between two marks.
func between(s, from, to string) string {
	_, rest, ok := strings.Cut(s, from)
	if !ok {
		return ""
	}
	found, _, _ := strings.Cut(rest, to)
	return found
}
