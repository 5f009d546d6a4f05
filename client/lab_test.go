//go:build linux

package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/client/agentapi"
	"vpnd/pkg/lab"
)

// site is a lab with a server and one client machine, on which alice is signed in.
type site struct {
	t       *testing.T
	lab     *lab.Lab
	client  *lab.Machine
	vpn     string
	orders  io.Writer
	answers *bufio.Scanner
	before  string // the client machine's network before vpn touched it
}

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	t.Parallel() // a lab of its own
	l, err := lab.New(t.Context(), lab.Options{Clients: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	s := &site{t: t, lab: l, client: l.Machine(lab.Client(1)), vpn: program(t, "vpn")}
	pin := s.startServer()
	s.before = s.network()
	s.run("correct horse\n", "login server --pin "+pin+" --user alice --password-stdin --device laptop").exits(0)
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := s.client.ReadFile("/var/lib/vpn-client/agent.log")
			t.Logf("the agent's log:\n%s", b)
		}
	})
	return s
}

func (s *site) startServer() (pin string) {
	s.t.Helper()
	cmd := s.lab.Machine(lab.Server).Command(program(s.t, "vpnserver"))
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s.orders, s.answers = in, bufio.NewScanner(out)
	return s.answer()
}

// order has the server do something.
func (s *site) order(format string, args ...any) string {
	s.t.Helper()
	fmt.Fprintf(s.orders, format+"\n", args...)
	return s.answer()
}

func (s *site) answer() string {
	s.t.Helper()
	if !s.answers.Scan() {
		s.t.Fatalf("the server is gone: %v", s.answers.Err())
	}
	a := s.answers.Text()
	if strings.HasPrefix(a, "error") {
		s.t.Fatal(a)
	}
	return a
}

// run runs vpn on the client machine.
func (s *site) run(stdin, line string) *result { s.t.Helper(); return s.runAs(0, stdin, line) }

func (s *site) runAs(uid uint32, stdin, line string, env ...string) *result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	cmd := s.client.CommandContext(ctx, s.vpn, strings.Fields(line)...)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Env = append(cmd.Env, "HOME=/nonexistent")
	}
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r := finish(s.t, cmd, line)
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

func (s *site) status() agentapi.Status {
	s.t.Helper()
	var rep struct{ Tunnel agentapi.Status }
	out := s.run("", "status -o json").exits(0).stdout
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		s.t.Fatalf("%v in %s", err, out)
	}
	return rep.Tunnel
}

// until waits for a condition of the tunnel.
func (s *site) until(what string, ok func(agentapi.Status) bool) agentapi.Status {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		st := s.status()
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("never %s: %+v", what, st)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// fetch gets a page from the client machine and says whom its server saw.
func (s *site) fetch(host string) (string, error) {
	c := s.client.HTTPClient()
	c.Timeout = 3 * time.Second
	defer c.CloseIdleConnections()
	res, err := c.Get("http://" + host + "/")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(b), err
}

func (s *site) wantFetch(from string) {
	s.t.Helper()
	if got, err := s.fetch(target); err != nil || got != from {
		s.t.Errorf("through the tunnel: seen as %q, %v; want %s", got, err, from)
	}
}

// wantBlocked checks that nothing gets out, to the VPN server's own network or
// the open internet, in either family.
func (s *site) wantBlocked() {
	s.t.Helper()
	var wg sync.WaitGroup
	for _, host := range []string{target, lab.TargetV4.String(), "[" + lab.TargetV6.String() + "]"} {
		wg.Go(func() {
			if got, err := s.fetch(host); err == nil {
				s.t.Errorf("%s answers %q although traffic is blocked", host, got)
			}
		})
	}
	wg.Wait()
}

// network is what vpn might change of the machine: links, addresses, routes,
// rules, name servers.
func (s *site) network() string {
	s.t.Helper()
	var lines []string
	err := s.client.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		links, err := h.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			lines = append(lines, "link "+l.Attrs().Name)
			addrs, err := h.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				lines = append(lines, "address "+a.IPNet.String()+" "+l.Attrs().Name)
			}
		}
		for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := h.RouteListFiltered(fam, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				// The kernel makes the local table of the addresses, some of it late.
				if r.Table != unix.RT_TABLE_LOCAL {
					lines = append(lines, fmt.Sprintf("route %v via %v dev %d table %d type %d metric %d", r.Dst, r.Gw, r.LinkIndex, r.Table, r.Type, r.Priority))
				}
			}
			rules, err := h.RuleList(fam)
			if err != nil {
				return err
			}
			for _, r := range rules {
				lines = append(lines, fmt.Sprintf("rule v%d %d %s", fam, r.Priority, r))
			}
		}
		info, err := os.Lstat("/etc/resolv.conf")
		if err != nil {
			return err
		}
		b, err := os.ReadFile("/etc/resolv.conf")
		lines = append(lines, fmt.Sprintf("resolv.conf %v %q", info.Mode(), b))
		for _, name := range []string{"/run/vpn-client/agent.sock", "/var/lib/vpn-client/system.json"} {
			if _, err := os.Lstat(name); err == nil {
				lines = append(lines, "left behind "+name)
			}
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *site) wantRestored() {
	s.t.Helper()
	if d := cmp.Diff(s.before, s.network()); d != "" {
		s.t.Errorf("the machine is not as it was:\n%s", d)
	}
	if got, err := s.fetch(lab.TargetV4.String()); err != nil {
		s.t.Errorf("the internet is out of reach: %q, %v", got, err)
	}
}

func (s *site) kill(pid int) {
	s.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := syscall.Kill(pid, 0)
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the agent survives")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTheTunnelCarriesTrafficAndLeavesNoTrace(t *testing.T) {
	s := newSite(t)
	if _, err := s.fetch(target); err == nil {
		t.Fatal("the target is reached without a tunnel: the test shows nothing")
	}
	s.run("", "up").exits(0).out(`^Tunnel     up, since`).out(`^Lane       vpn, interface vpn0$`).out(`^Addresses  10.8.0.2, fd76:706e:6408::2$`)
	s.wantFetch("10.8.0.2")
	s.run("", "up").exits(0) // again
	b, err := s.client.ReadFile("/etc/resolv.conf")
	if err != nil || !strings.Contains(string(b), "nameserver 10.8.0.1\n") {
		t.Errorf("resolv.conf is %q, %v", b, err)
	}
	st := s.until("a heartbeat inside the tunnel", func(st agentapi.Status) bool { return st.Heartbeat.State == "ok" })
	if st.Heartbeat.Way != "inside" || st.RxBytes == 0 || st.TxBytes == 0 || st.LastHandshake == nil || st.Endpoint == "" {
		t.Errorf("got %+v", st)
	}
	log, err := os.Stat(filepath.Join("/proc", fmt.Sprint(st.PID), "root/var/lib/vpn-client/agent.log"))
	if err != nil || log.Mode() != 0o600 {
		t.Errorf("the log: %v, %v", log, err)
	}
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", st.PID))
	if got := string(args); !strings.HasSuffix(got, "/vpn\x00agent\x00") {
		t.Errorf("the agent's arguments are %q", got)
	}

	s.run("", "down").exits(0).out(`^Tunnel  down$`)
	s.wantRestored()
	if got := s.order("sessions"); got != "null" {
		t.Errorf("the server still has sessions %s", got)
	}
	s.run("", "down").exits(0) // again
}

func TestAnAgentThatIsKilledBlocksUntilDown(t *testing.T) {
	s := newSite(t)
	s.run("", "up").exits(0)
	s.kill(s.status().PID)
	if st := s.status(); st.State != agentapi.Crashed || !st.Blocking {
		t.Errorf("got %+v", st)
	}
	s.wantBlocked()
	s.run("", "down").exits(0)
	s.wantRestored()
	if st := s.status(); st.State != agentapi.Down {
		t.Errorf("got %+v", st)
	}
}

// After a crash the way back into the tunnel must not lead over the open network:
// nothing but the tunnel and calls to the server leaves the machine.
func TestComingBackAfterACrashLeaksNothing(t *testing.T) {
	s := newSite(t)
	s.run("", "up").exits(0)
	uplink, err := s.client.Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- s.chatter(stop) }()
	s.kill(s.status().PID)
	s.run("", "up").exits(0)
	s.wantFetch("10.8.0.2")
	close(stop)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	uplink.Stop()
	server := s.lab.Machine(lab.Server)
	tunnelled := 0
	for _, p := range uplink.Packets() {
		toServer := p.Dst == server.IPv4() || p.Dst == server.IPv6()
		switch {
		case !p.Out || p.Dst.IsMulticast() || p.Proto == unix.IPPROTO_ICMPV6:
		case toServer && p.Proto == unix.IPPROTO_UDP && p.DstPort == 51820:
			tunnelled++
		case toServer && p.Proto == unix.IPPROTO_TCP && p.DstPort == 4605:
		default:
			t.Errorf("leaked: %s", p)
		}
	}
	if tunnelled == 0 {
		t.Error("nothing was captured: the test shows nothing")
	}
	s.run("", "down").exits(0)
	s.wantRestored()
}

// chatter sends datagrams to the internet until it is stopped.
func (s *site) chatter(stop chan struct{}) error {
	for _, ip := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		conn, err := s.client.DialContext(s.t.Context(), "udp", netip.AddrPortFrom(ip, 9999).String())
		if err != nil {
			continue // blocked already
		}
		go func() {
			for {
				select {
				case <-stop:
					_ = conn.Close()
					return
				case <-time.After(time.Millisecond):
					_, _ = conn.Write([]byte("chatter"))
				}
			}
		}()
	}
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(5 * time.Millisecond):
		}
		// New sockets too: their routes are chosen anew.
		err := s.client.Do(func() error {
			for _, ip := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
				if c, err := net.Dial("udp", netip.AddrPortFrom(ip, 9999).String()); err == nil {
					_, _ = c.Write([]byte("chatter"))
					_ = c.Close()
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func TestASessionThatTheOperatorKillsStaysClosedAndBlocks(t *testing.T) {
	s := newSite(t)
	s.run("", "up").exits(0)
	s.order("end killed")
	st := s.until("closed", func(st agentapi.Status) bool { return st.State == agentapi.Closed })
	if st.Reason != "killed" || !st.Blocking || !strings.Contains(st.Message, "'vpn up' to try again") {
		t.Errorf("got %+v", st)
	}
	s.wantBlocked()
	s.run("", "up").exits(0)
	s.wantFetch("10.8.0.2")
	s.order("end expired")
	s.until("a new session", func(st agentapi.Status) bool {
		return st.State == agentapi.Up && s.order("sessions") != "null"
	})
	s.wantFetch("10.8.0.2")
	s.run("", "down").exits(0)
	s.wantRestored()
}

func TestAServerThatRestartsIsNotNoticedInTheTunnel(t *testing.T) {
	s := newSite(t)
	s.run("", "up").exits(0)
	pings, err := s.client.Ping(t.Context(), netip.MustParseAddr("10.8.0.1"), 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	s.until("a heartbeat", func(st agentapi.Status) bool { return st.Heartbeat.State == "ok" })
	s.order("stop")
	st := s.until("failing heartbeats", func(st agentapi.Status) bool { return st.Heartbeat.State == "failing" })
	if st.State != agentapi.Up {
		t.Errorf("got %+v", st)
	}
	s.order("listen")
	s.until("heartbeats again", func(st agentapi.Status) bool { return st.Heartbeat.State == "ok" })
	s.until("two renewals", func(agentapi.Status) bool {
		return len(s.order("calls auth.reauth")) > 1 || s.order("calls auth.reauth") >= "2"
	})
	res := pings.Stop()
	if res.Lost != 0 || res.Sent < 100 {
		t.Errorf("pings: %+v", res)
	}
	s.wantFetch("10.8.0.2")
	s.run("", "down").exits(0)
	s.wantRestored()
}

func TestChangingLanes(t *testing.T) {
	s := newSite(t)
	s.run("", "up").exits(0)
	s.run("", "up --lane tor").exits(0).out(`^Lane       tor`).out(`^Addresses  10.9.0.2, fd76:706e:6409::2$`)
	if n := s.order("calls vpn.initiate"); n != "1" {
		t.Errorf("%s sessions were opened", n)
	}
	b, err := s.client.ReadFile("/etc/resolv.conf")
	if err != nil || !strings.Contains(string(b), "nameserver 10.9.0.1\n") {
		t.Errorf("resolv.conf is %q, %v", b, err)
	}
	st := s.until("the server's word of the lane", func(st agentapi.Status) bool {
		return st.Heartbeat.State == "ok" && st.LaneState.State == "maintenance"
	})
	if st.Lane != "tor" || st.LaneState.ExitCountry != "de" {
		t.Errorf("got %+v", st)
	}
	s.run("", "status").exits(0).out(`^Lane       tor, interface vpn0, maintenance$`).
		out(`^           back at noon$`)
	s.run("", "up --lane vpn").exits(0)
	s.wantFetch("10.8.0.2")
	s.run("", "logout").exits(0)
	s.wantRestored()
	s.run("", "status").exits(0).out(`^Signed in  no`)
}

func TestATunnelThatDoesNotComeUpLeavesNothing(t *testing.T) {
	s := newSite(t)
	s.order("deaf")
	s.run("", "up --timeout 3s").exits(8).err(`not up after 3s`).err(`^hint: nothing was changed`).out("")
	s.wantRestored()
	s.order("stop")
	s.run("", "up --timeout 3s").exits(8).err(`^hint: nothing was changed; check that the server runs`)
	s.wantRestored()
}

func TestTwoUpsMakeOneTunnel(t *testing.T) {
	s := newSite(t)
	done := make(chan *result)
	for range 3 {
		go func() { done <- s.run("", "up -o json") }()
	}
	pids := map[int]bool{}
	for range 3 {
		r := (<-done).exits(0)
		var rep struct{ Tunnel agentapi.Status }
		if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
			t.Error(err)
		}
		pids[rep.Tunnel.PID] = true
	}
	if len(pids) != 1 {
		t.Errorf("agents %v", pids)
	}
	s.wantFetch("10.8.0.2")
	for range 2 {
		go func() { done <- s.run("", "down") }()
	}
	for range 2 {
		(<-done).exits(0)
	}
	s.wantRestored()
}

func TestStrangersHaveNoSay(t *testing.T) {
	s := newSite(t)
	const nobody = 65534
	s.runAs(nobody, "", "status").exits(0).out(`down`)
	s.run("", "up").exits(0)
	s.runAs(nobody, "", "down").exits(4).err(`belongs to user 0`)
	s.runAs(nobody, "", "status").exits(4)
	s.wantFetch("10.8.0.2")
	s.kill(s.status().PID)
	s.runAs(nobody, "", "status").exits(0).out(`crashed`)
	s.runAs(nobody, "", "down").exits(4).err(`needs root`).err(`^hint: try: sudo vpn down`)
	s.run("", "down").exits(0)
	s.wantRestored()
}

func TestASignalRestoresTheMachine(t *testing.T) {
	s := newSite(t)
	s.run("", "up").exits(0)
	if err := syscall.Kill(s.status().PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.until("down", func(st agentapi.Status) bool { return st.State == agentapi.Down })
	s.run("", "down").exits(0) // waits for the rest
	s.wantRestored()
}

func TestStrictReversePathFilteringIsNamed(t *testing.T) {
	s := newSite(t)
	set := func(value string) {
		err := s.client.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/eth0/rp_filter", []byte(value), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	err := s.client.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0) })
	if err != nil {
		t.Fatal(err)
	}
	s.run("", "up").exits(5).err(`strict reverse path filtering on eth0`).err(`^hint: make it loose: sysctl -w net.ipv4.conf.eth0.rp_filter=2$`)
	s.wantRestored()
	set("2")
	s.run("", "up").exits(0)
	s.wantFetch("10.8.0.2")
	s.run("", "down").exits(0)
	s.wantRestored()
}

// With sudo everything is the person's own: the profile, and the say over the
// tunnel, for which they then need no sudo.
func TestSudo(t *testing.T) {
	s := newSite(t)
	const uid, home = 4242, "/run/bob"
	err := s.client.Do(func() error {
		f, err := os.OpenFile("/etc/passwd", os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(f, "bob:x:%d:%d::%s:/bin/sh\n", uid, uid, home)
		return errors.Join(err, f.Close(), os.Mkdir(home, 0o755), os.Chown(home, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
	pin := s.run("", "status -o json").stdout
	_, pin, _ = strings.Cut(pin, `"pin": "`)
	pin, _, _ = strings.Cut(pin, `"`)
	bob := func(line string) *result { return s.runAs(uid, "correct horse\n", line, "HOME="+home) }
	sudo := func(line string) *result { return s.runAs(0, "correct horse\n", line, fmt.Sprintf("SUDO_UID=%d", uid)) }

	sudo("login server --pin " + pin + " --user alice --password-stdin --device bobs").exits(0)
	bob("status").exits(0).out(`^Signed in  alice at server`).out(`^Device     bobs`)
	bob("login --password-stdin").exits(0)
	bob("up").exits(4).err(`needs root`).err(`^hint: try: sudo vpn up$`)
	sudo("up").exits(0)
	bob("status").exits(0).out(`^Tunnel     up`)
	s.until("a renewal", func(agentapi.Status) bool { return s.order("calls auth.reauth") >= "1" })
	bob("status -o json").exits(0) // root's agent has left it readable
	bob("up --lane tor").exits(0).out(`^Lane       tor`)
	bob("down").exits(0)
	s.wantRestored()
	bob("logout").exits(0)
}

func TestWatchingTheStatus(t *testing.T) {
	s := newSite(t)
	cmd := s.client.Command(s.vpn, "status", "-w", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	wait := func(want agentapi.State) {
		t.Helper()
		for lines.Scan() {
			var rep struct{ Tunnel agentapi.Status }
			if err := json.Unmarshal(lines.Bytes(), &rep); err != nil {
				t.Fatalf("%v in %s", err, lines.Text())
			}
			if rep.Tunnel.State == want {
				return
			}
		}
		t.Fatalf("never %s", want)
	}
	time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	wait(agentapi.Down)
	s.run("", "up").exits(0)
	wait(agentapi.Up)
	s.run("", "down").exits(0)
	wait(agentapi.Down)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A command that is interrupted leaves nothing behind.
func TestUpThatIsInterrupted(t *testing.T) {
	s := newSite(t)
	s.order("deaf")
	cmd := s.client.Command(s.vpn, "up")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.until("connecting", func(st agentapi.Status) bool { return st.State == agentapi.Connecting && st.Endpoint != "" })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("exit status %d", got)
	}
	s.wantRestored()
}
