//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/lab"
)

// nothingLeavesButTor breaks everything that can break, one after the other,
// while a device sends what it can.
func nothingLeavesButTor(t *testing.T, w *torWorld) {
	b := watchBorder(t, w)
	f := startFlood(t, w)
	for _, fault := range torFaults {
		t.Run(fault.name, func(t *testing.T) {
			w := w.in(t)
			w.ctl(0, "", "wait", "tor=up", "--timeout", "38s") // the one before may have failed
			began, sent := time.Now(), f.sent.Load()
			fault.inflict(t, w)
			w.ctl(0, "", "wait", "tor=up", "--timeout", "38s")
			w.seesExit()
			if f.sent.Load() == sent {
				t.Error("the device sent nothing: this proves nothing")
			}
			b.nothing(t, "around: "+fault.name)
			w.torsBugs()
			t.Logf("%s, %d packets sent", time.Since(began).Round(time.Millisecond), f.sent.Load()-sent)
		})
	}
	t.Run("a leak is seen", func(t *testing.T) { leaksAreSeen(t, w.in(t), b) })
	t.Logf("sent %d, the kernel refused %d, TCP connections that were accepted %d", f.sent.Load(), f.failed.Load(), f.connected.Load())
}

// torFaults are what is done to lane tor. Each leaves it so that it comes up by
// itself.
var torFaults = []struct {
	name    string
	inflict func(*testing.T, *torWorld)
}{
	{"the wish changes all the time", wishFlips},
	{"tor is killed", torIsKilled},
	{"service tor is killed", func(t *testing.T, w *torWorld) { w.killService("tor") }},
	{"service lanes is killed", func(t *testing.T, w *torWorld) { w.killService("lanes") }},
	{"the supervisor is killed", func(t *testing.T, w *torWorld) {
		w.daemon.Kill()
		w.start()
	}},
	{"everything is killed", everythingIsKilled},
	{"wireguard-go is killed", wireguardIsKilled},
	{"a stranger flushes the rules", func(t *testing.T, w *torWorld) {
		for range 20 {
			w.server("nft", "flush", "ruleset")
			time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		}
	}},
	{"somebody listens on tor's port", portIsTaken},
	{"the disk is full", diskIsFull},
	{"tor hangs", torHangs},
	{"service tor hangs", torServiceHangs},
	{"the control socket is removed", socketIsRemoved},
	{"the clock is wrong", clockIsWrong},
}

// wishFlips changes the wish at random, as fast as it goes.
func wishFlips(t *testing.T, w *torWorld) {
	const flips, atMost = 1000, 30 * time.Second
	conn := w.control()
	want := map[tor.Wish]string{tor.WishDown: "blocked", tor.WishMaintenance: "maintenance"}
	began, done, ups := time.Now(), 0, 0
	for ; done < flips && time.Since(began) < atMost; done++ {
		r := &tor.WishRequest{}
		r.Body.Wish = []tor.Wish{tor.WishUp, tor.WishMaintenance, tor.WishDown}[rand.IntN(3)]
		s, err := tor.SetWish.Call(t.Context(), conn, r)
		if err != nil {
			t.Fatalf("flip %d to %s: %v", done, r.Body.Wish, err)
		}
		if lane := want[r.Body.Wish]; lane != "" && s.Lane != lane {
			t.Fatalf("flip %d: wish %s, lane %s", done, r.Body.Wish, s.Lane)
		}
		if s.Lane == "up" {
			ups++
		}
	}
	t.Logf("%d flips in %s, the lane was up after %d", done, time.Since(began).Round(time.Millisecond), ups)
	w.ctl(0, "", "tor", "up")
}

func torIsKilled(t *testing.T, w *torWorld) {
	old := w.torPID()
	w.kill(old)
	s := w.tells("tor is not running, or is starting again", func(s *tor.Status) bool {
		return s.Lane == "maintenance" && (strings.HasPrefix(s.Reason, "tor is not running") || strings.HasPrefix(s.Reason, "tor is starting") || strings.HasPrefix(s.Reason, "tor is connecting"))
	})
	if strings.Contains(s.Reason, "TestingTorNetwork") {
		t.Errorf("a warning of long ago passes for the reason of tor's death: %q", s.Reason)
	}
	w.ctl(0, "", "wait", "tor=up", "--timeout", "38s")
	if pid := w.torPID(); pid == old {
		t.Errorf("tor still has pid %d", pid)
	}
}

func everythingIsKilled(t *testing.T, w *torWorld) {
	w.kill(w.torPID())
	for _, pid := range w.pids() { // the tunnels too
		_ = unix.Kill(pid, unix.SIGKILL) // it may be gone already
	}
	w.daemon.Kill()
	w.start()
	w.heardAgain()
}

// heardAgain waits until the tunnel has a new handshake: without one a device is
// not heard at all.
func (w *torWorld) heardAgain() {
	w.t.Helper()
	began := time.Now()
	eventually(w.t, 40*time.Second, func() error { _, err := w.get(laptop, page(lab.TargetV4, "/ip")); return err })
	w.t.Logf("heard again after %s", time.Since(began).Round(time.Millisecond))
}

func wireguardIsKilled(t *testing.T, w *torWorld) {
	old := w.pids()["wg1"]
	w.kill(old)
	eventually(t, 20*time.Second, func() error {
		if pid := w.pids()["wg1"]; pid == 0 || pid == old {
			return errors.New("no new wireguard-go")
		}
		return nil
	})
	w.heardAgain()
}

func torHangs(t *testing.T, w *torWorld) {
	old := w.torPID()
	if err := unix.Kill(old, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.tells("tor does not answer", func(s *tor.Status) bool {
		return s.Process == tor.ProcessHung && s.Lane == "maintenance" && strings.HasPrefix(s.Reason, "tor does not answer") && strings.Contains(s.Hint, "restarted")
	})
	w.tells("another tor", func(s *tor.Status) bool { return s.PID != 0 && s.PID != old })
}

// torServiceHangs stops the one who keeps lane tor open: either the supervisor
// starts another in time, or the lease runs out and the lane is blocked.
func torServiceHangs(t *testing.T, w *torWorld) {
	old := w.pids()["tor"]
	if err := unix.Kill(old, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 40*time.Second, func() error {
		if pid := w.pids()["tor"]; pid == 0 || pid == old {
			return errors.New("no new service tor")
		}
		return nil
	})
	w.eventuallyReady("tor")
}

func socketIsRemoved(t *testing.T, w *torWorld) {
	old := w.torPID()
	w.server("rm", "/run/vpnd/tor/control.sock")
	w.tells("the control socket is gone", func(s *tor.Status) bool {
		return s.Lane == "maintenance" && strings.Contains(s.Reason, "control socket") && strings.Contains(s.Hint, "restarted")
	})
	w.tells("another tor", func(s *tor.Status) bool { return s.PID != 0 && s.PID != old })
}

// leaksAreSeen makes holes into every lock, with the repair held still, until
// something of every kind has got out: the measurement itself is measured.
func leaksAreSeen(t *testing.T, w *torWorld, b *border) {
	w.ctl(0, "", "tor", "down", "-y")
	b.nothing(t, "before the locks were opened")
	missing := map[string]bool{"udp 4": true, "udp 6": true, "tcp 4": true, "tcp 6": true, "icmp 4": true, "icmp 6": true, "fragment": true}
	total := 0
	held := 0
	eventually(t, 30*time.Second, func() error {
		if pid := w.pids()["lanes"]; pid > 1 { // another, when the supervisor has lost patience
			held = pid
			_ = unix.Kill(held, unix.SIGSTOP)
		}
		_ = w.tryServer("sh", "-c", `
			for c in c_gate c_forward c_egress; do nft insert rule inet vpnd $c iifname wg1 accept; done
			nft 'add table inet stranger; add chain inet stranger out { type nat hook postrouting priority 100; }; add rule inet stranger out masquerade'
			ip rule del prio 1; ip -6 rule del prio 1`) // any may be too late, or too early
		time.Sleep(300 * time.Millisecond)
		for _, p := range b.turn(t) {
			total++
			family := " 4"
			if p.Dst.Is6() {
				family = " 6"
			}
			switch p.Proto {
			case unix.IPPROTO_UDP:
				delete(missing, "udp"+family)
			case unix.IPPROTO_TCP:
				delete(missing, "tcp"+family)
			case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
				delete(missing, "icmp"+family)
			}
			if p.Fragment {
				delete(missing, "fragment")
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%d leaks, none of these kinds: %v", total, missing)
		}
		return nil
	})
	t.Logf("%d leaks were seen", total)
	_ = unix.Kill(held, unix.SIGCONT) // it may be gone already
	w.server("nft", "delete", "table", "inet", "stranger")
	// The repair closes all holes by itself.
	eventually(t, 10*time.Second, func() error {
		b.turn(t)
		time.Sleep(500 * time.Millisecond)
		if bad := b.turn(t); len(bad) > 0 {
			return errors.New("it still leaks: " + bad[0].String())
		}
		return nil
	})
	w.ctl(0, "", "tor", "up", "--wait", "--timeout", "30s")
	w.seesExit()
}

func (w *torWorld) torPID() int {
	w.t.Helper()
	s, err := tor.GetStatus.Call(w.t.Context(), w.control(), nil)
	if err != nil || s.PID == 0 {
		w.t.Fatalf("tor's pid: %+v, %v", s, err)
	}
	return s.PID
}

// torsBugs shows what tor itself calls a bug: something that it did not expect.
// The log begins anew with every tor.
func (w *torWorld) torsBugs() {
	w.t.Helper()
	log, err := w.Machine(lab.Server).ReadFile(filepath.Join(torState, "notice.log"))
	if err != nil {
		w.t.Error(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "Bug: ") {
			w.t.Logf("tor says %d times that something is a bug, first: %s", strings.Count(string(log), "Bug: "), line)
			return
		}
	}
}

func (w *torWorld) kill(pid int) {
	w.t.Helper()
	if pid <= 1 {
		w.t.Fatal("there is no such process")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
}

func (w *torWorld) killService(name string) {
	w.t.Helper()
	w.kill(w.pids()[name])
	w.eventuallyReady(name)
}

// tells waits until the status says what it should, and returns it.
func (w *torWorld) tells(what string, ok func(*tor.Status) bool) *tor.Status {
	w.t.Helper()
	seen, last := []string{}, ""
	conn := w.control()
	for deadline := time.Now().Add(25 * time.Second); ; {
		s, err := tor.GetStatus.Call(w.t.Context(), conn, nil)
		said := fmt.Sprint(err)
		if err == nil {
			said = fmt.Sprintf("%s, %s: %q, hint %q", s.Lane, s.Process, s.Reason, s.Hint)
		}
		if said != last {
			seen, last = append(seen, said), said
		}
		if err == nil && ok(s) {
			w.t.Logf("%s:\n\t%s", what, strings.Join(seen, "\n\t"))
			return s
		}
		if time.Now().After(deadline) {
			for _, name := range []string{"output.log", "notice.log"} {
				log, _ := w.Machine(lab.Server).ReadFile(filepath.Join(torState, name))
				w.t.Logf("%s:\n%s", name, log[max(0, len(log)-1500):])
			}
			w.t.Fatalf("the status never said: %s; it said\n\t%s", what, strings.Join(seen, "\n\t"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// server runs a program of the distribution on the server.
func (w *torWorld) server(name string, args ...string) {
	w.t.Helper()
	if err := w.tryServer(name, args...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *torWorld) tryServer(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	cmd := w.Machine(lab.Server).CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
