//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
)

// line is an open connection to something that echoes.
type line struct {
	net.Conn
	r     *bufio.Reader
	turns atomic.Int64
}

func (w *torWorld) openLine(machine string, to netip.AddrPort) (*line, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
	defer cancel()
	c, err := w.Machine(machine).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	l := &line{Conn: c, r: bufio.NewReader(c)}
	if err := l.echo(15 * time.Second); err != nil {
		_ = c.Close()
		return nil, err
	}
	return l, nil
}

// echo says something new and waits until it comes back.
func (l *line) echo(within time.Duration) error {
	said := fmt.Sprintf("turn %d\n", l.turns.Add(1))
	if err := l.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := l.Write([]byte(said)); err != nil {
		return err
	}
	heard, err := l.r.ReadString('\n')
	if err == nil && heard != said {
		err = fmt.Errorf("said %q, heard %q", said, heard)
	}
	return err
}

// talk is a line that is used all the time.
type talk struct {
	*line
	longest atomic.Int64 // longest turn, in nanoseconds
	stop    chan struct{}
	ended   chan error
}

func (l *line) keepTalking() *talk {
	k := &talk{line: l, stop: make(chan struct{}), ended: make(chan error, 1)}
	go func() {
		for {
			began := time.Now()
			if err := l.echo(15 * time.Second); err != nil {
				k.ended <- fmt.Errorf("turn %d, after %s: %w", l.turns.Load(), time.Since(began), err)
				return
			}
			k.longest.Store(max(k.longest.Load(), int64(time.Since(began))))
			select {
			case <-k.stop:
				k.ended <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return k
}

// more waits for n more turns.
func (k *talk) more(t *testing.T, n int64, when string) bool {
	t.Helper()
	want, deadline := k.turns.Load()+n, time.Now().Add(20*time.Second)
	for k.turns.Load() < want {
		select {
		case err := <-k.ended:
			k.ended <- err
			t.Errorf("an open connection ended %s: %v", when, err)
			return false
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Errorf("an open connection hangs %s", when)
			return false
		}
	}
	return true
}

// openConnectionsSurvive restarts and kills everything of vpnd but tor and the
// tunnels, while a connection of each family is in use.
func openConnectionsSurvive(t *testing.T, w *torWorld) {
	var talks []*talk
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		l, err := w.openLine(laptop, netip.AddrPortFrom(target, 7))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		talks = append(talks, l.keepTalking())
	}
	check := func(when string) {
		for _, k := range talks {
			if !k.more(t, 5, when) {
				t.FailNow()
			}
			if d := time.Duration(k.longest.Swap(0)); d > 500*time.Millisecond {
				t.Logf("%s: one turn took %s", when, d.Round(time.Millisecond))
			}
		}
	}
	check("before anything happened")
	for _, name := range []string{"tor", "lanes", "sessions"} {
		w.ctl(0, "", "service", "restart", name)
		w.eventuallyReady(name)
		check("when " + name + " was restarted")
	}
	services := w.pids()
	for name, pid := range services {
		if strings.HasPrefix(name, "wg") {
			continue // the tunnel itself
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.eventuallyReady(name)
		check("when " + name + " was killed")
	}
	w.daemon.Kill()
	check("without vpnd")
	w.start()
	check("when vpnd was killed and started again")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.daemon.Stop(ctx); err != nil {
		t.Logf("vpnd ended with %v", err)
	}
	check("when vpnd was stopped")
	w.start()
	check("when vpnd was started again")
	w.ctl(0, "", "wait", "tor=up", "--timeout", "30s")
	check("at the end")
	for _, k := range talks {
		close(k.stop)
		if err := <-k.ended; err != nil {
			t.Error(err)
		}
		t.Logf("%d turns on one connection", k.turns.Load())
	}
}
