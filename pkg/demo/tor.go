//go:build linux

package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
)

func (s *story) torNetwork(l *lab.Lab) (err error) {
	s.title("A Tor network of the lab's own")
	began := time.Now()
	if s.tor, err = tornet.Start(s.ctx, l); err != nil {
		return err
	}
	s.say("a directory authority and guard, a middle relay, two exits and an onion service, after %.1f s", time.Since(began).Seconds())
	for _, e := range s.tor.Exits() {
		s.say("  exit in %s  %-15s %s", e.Country, e.V4, e.V6)
	}
	s.say("  onion       %s", s.tor.Onion())
	return nil
}

func (s *story) bootstrap() error {
	s.title("vpnd's own tor bootstraps, and lane tor comes up")
	if err := s.run(lab.Server, "", "vpnctl", "tor", "bootstrap"); err != nil {
		return err
	}
	return s.run(lab.Server, "", "vpnctl", "wait", "tor=up")
}

func (s *story) torLane() error {
	s.title("The laptop changes its lane: now the internet, through three relays")
	laptop := lab.Client(1)
	if err := s.run(laptop, "", "vpn", "lane", "tor"); err != nil {
		return err
	}
	exits, err := s.seeExits(laptop)
	if err != nil {
		return err
	}
	s.say("neither page sees the laptop or the server: these are exits, %s and %s\n", exits[0].Nickname, exits[1].Nickname)
	if err := s.run(lab.Server, "", "vpnctl", "tor", "circuit", "list"); err != nil {
		return err
	}
	hers, err := s.circuitsOf("alice")
	if err != nil {
		return err
	}
	for i, e := range exits {
		if i > 0 && e == exits[0] {
			break
		}
		at := slices.IndexFunc(hers, func(c circuit) bool {
			return len(c.Path) == 3 && c.Path[2].Fingerprint == e.Fingerprint
		})
		if at < 0 {
			return fmt.Errorf("no circuit of three relays of alice's ends at %s: %v", e.Nickname, hers)
		}
		s.say("alice's circuit %s ends at the address that the page saw", hers[at])
	}
	return nil
}

func (s *story) onion() error {
	s.title("An onion page, by its name, as any program asks for it")
	laptop, name := lab.Client(1), s.tor.Onion()
	s.prompt(laptop, "getent ahostsv4 "+name)
	out, err := s.Machine(laptop).CommandContext(s.ctx, "getent", "ahostsv4", name).Output()
	if err != nil {
		return fmt.Errorf("look up the onion name: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	s.say("%s", line)
	address, _, _ := strings.Cut(line, " ")
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Errorf("look up the onion name: %w", err)
	}
	s.prompt(laptop, "get http://"+name+"/")
	p, err := s.fetch(laptop, "http://"+ip.String()+"/", name)
	if err != nil {
		return err
	}
	var seen lab.Seen
	if err := json.Unmarshal([]byte(p.body), &seen); err != nil || seen.Host != name {
		return fmt.Errorf("the onion page answered %d: %s", p.status, p.body)
	}
	if seen.Client != s.Machine(lab.Internet).IPv4() {
		return fmt.Errorf("the onion page saw %s, not its own machine", seen.Client)
	}
	s.say("the onion page sees its own machine's %s: onion services are told nobody's address", seen.Client)
	return nil
}

func (s *story) exitCountry() error {
	s.title("alice wants to leave Tor in the Netherlands")
	if err := s.run(lab.Server, "", "vpnctl", "tor", "exit", "set", "nl", "--user", "alice"); err != nil {
		return err
	}
	exits, err := s.seeExits(lab.Client(1))
	if err != nil {
		return err
	}
	for _, e := range exits {
		if e.Country != "nl" {
			return fmt.Errorf("alice left Tor in %s", e.Country)
		}
	}
	s.say("both are the exit in nl\n")
	return s.run(lab.Server, "", "vpnctl", "tor", "exit", "clear", "--user", "alice")
}

func (s *story) newIdentity() error {
	s.title("alice gets a new identity; bob's open connection goes on")
	tablet := lab.Client(3)
	if err := s.run(tablet, "", "vpn", "lane", "tor"); err != nil {
		return err
	}
	s.prompt(tablet, "echo 203.0.113.10:7 &")
	bobs, err := s.talk(tablet, netip.AddrPortFrom(lab.TargetV4, 7))
	if err != nil {
		return err
	}
	defer bobs.close()
	if err := bobs.more(20); err != nil {
		return err
	}
	s.say("bob's tablet says something to an echo server every 20 ms")
	if _, err := s.seeExits(lab.Client(1)); err != nil {
		return err
	}
	fmt.Fprintln(s.Out)
	before, his, err := s.circuitsOfBoth()
	if err != nil {
		return err
	}
	turns := bobs.turns.Load()
	if err := s.run(lab.Server, "", "vpnctl", "tor", "newid", "--user", "alice"); err != nil {
		return err
	}
	if _, err := s.seeExits(lab.Client(1)); err != nil {
		return err
	}
	if err := bobs.more(20); err != nil {
		return err
	}
	after, hisAfter, err := s.circuitsOfBoth()
	if err != nil {
		return err
	}
	s.say("alice: circuits %s before, %s after", ids(before), ids(after))
	s.say("bob:   circuits %s before, %s after; %d answers before, %d since, on one connection",
		ids(his), ids(hisAfter), turns, bobs.turns.Load()-turns)
	for _, c := range after {
		if slices.ContainsFunc(before, c.is) {
			return fmt.Errorf("alice still uses circuit %s", c.ID)
		}
	}
	for _, c := range his {
		if !slices.ContainsFunc(hisAfter, c.is) {
			return fmt.Errorf("bob lost circuit %s", c.ID)
		}
	}
	return nil
}

func (s *story) leakTest() error {
	s.title("Does anything get past Tor? vpnd tries to")
	return s.run(lab.Server, "", "vpnctl", "leaktest") // which fails when something did
}

func (s *story) maintenance() error {
	s.title("Maintenance: nothing passes, and who asks for a page reads why")
	const message = "new disks, back at noon"
	if err := s.run(lab.Server, "", "vpnctl", "tor", "maintenance", "--message", message); err != nil {
		return err
	}
	laptop := lab.Client(1)
	url := "http://" + netip.AddrPortFrom(lab.TargetV4, 80).String() + "/ip"
	s.prompt(laptop, "get "+url)
	p, err := s.fetch(laptop, url, "")
	if err != nil {
		return err
	}
	shown := html.UnescapeString(between(p.body, "<p>", "</p>"))
	s.say("%d %s: %s", p.status, http.StatusText(p.status), shown)
	if p.status != http.StatusServiceUnavailable || shown != message {
		return errors.New("this is not the page that was to be shown")
	}
	for _, target := range targets {
		to := netip.AddrPortFrom(target, 7)
		c, err := s.Machine(laptop).DialContext(s.ctx, "tcp", to.String())
		if err == nil {
			_ = c.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("in maintenance %s was not refused at once: %v", to, err)
		}
	}
	s.say("other ports are refused at once, over IPv4 and IPv6\n")
	if err := s.run(lab.Server, "", "vpnctl", "tor", "up", "--wait"); err != nil {
		return err
	}
	if _, err := s.seeExits(laptop); err != nil {
		return err
	}
	s.say("the exits again\n")
	if err := s.run(laptop, "", "vpn", "lane", "vpn"); err != nil {
		return err
	}
	if err := s.seeServer(laptop); err != nil {
		return err
	}
	s.say("and the server, in lane vpn")
	return nil
}

// seeExits fetches a page of both families and gives the exits they saw.
func (s *story) seeExits(machine string) ([2]tornet.Exit, error) {
	var out [2]tornet.Exit
	for i, target := range targets {
		seen, err := s.seenBy(machine, target)
		if err != nil {
			return out, err
		}
		all := s.tor.Exits()
		at := slices.IndexFunc(all, func(e tornet.Exit) bool { return seen == []netip.Addr{e.V4, e.V6}[i].String() })
		if at < 0 {
			return out, fmt.Errorf("the page saw %s, which is no exit", seen)
		}
		out[i] = all[at]
	}
	return out, nil
}
