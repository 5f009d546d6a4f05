//go:build linux

package wgdev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fakeDaemon answers each request with what answer gives; "" closes the connection
// and "hang" says nothing. It checks that requests do not overlap.
func fakeDaemon(t *testing.T, answer func(n int, op string) string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "uapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var busy atomic.Int32
	var n atomic.Int32
	var conns sync.WaitGroup
	t.Cleanup(conns.Wait)
	t.Cleanup(func() { _ = l.Close() })
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				rd := bufio.NewReader(c)
				for {
					var op string
					for {
						line, err := rd.ReadString('\n')
						if err != nil {
							return
						}
						if line == "\n" {
							break
						}
						if op == "" {
							op = strings.TrimSpace(line)
						}
					}
					if busy.Add(1) != 1 {
						t.Error("two requests at once")
					}
					text := answer(int(n.Add(1)), op)
					busy.Add(-1)
					if text == "" {
						return
					}
					if text != "hang" {
						fmt.Fprint(c, text)
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func dialFake(t *testing.T, path string) *uapiConn {
	t.Helper()
	c, err := dialUAPI(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func TestCallEndsWithItsContext(t *testing.T) {
	c := dialFake(t, fakeDaemon(t, func(n int, _ string) string {
		if n <= 2 {
			return "hang"
		}
		return "errno=0\n\n"
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: got %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: got %v", err)
	}
	// The late answer to an abandoned call must not be taken for the next one's.
	if _, err := c.read(t.Context()); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestBrokenConnectionIsMadeAnewOnce(t *testing.T) {
	c := dialFake(t, fakeDaemon(t, func(n int, _ string) string {
		if n == 2 || n >= 4 {
			return ""
		}
		return "listen_port=5\nerrno=0\n\n"
	}))
	for range 2 { // requests 1; 2 and 3
		if s, err := c.read(t.Context()); err != nil || s.listenPort != 5 {
			t.Errorf("got %+v, %v", s, err)
		}
	}
	if _, err := c.read(t.Context()); !errors.Is(err, ErrGone) { // requests 4 and 5
		t.Errorf("got %v", err)
	}
}

func TestRefusedRequestIsAnErrorAndTheNextOneWorks(t *testing.T) {
	c := dialFake(t, fakeDaemon(t, func(n int, op string) string {
		switch {
		case n == 1:
			return "errno=-22\n\n"
		case n == 2:
			return "listen_port=oops\nerrno=0\n\n"
		case op == "set=1":
			return "errno=0\n\n"
		}
		return "bad operation"
	}))
	if err := c.program(t.Context(), change{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v", err)
	}
	if err := c.program(t.Context(), change{}); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
	if err := c.program(t.Context(), change{}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentCallsTakeTurns(t *testing.T) {
	c := dialFake(t, fakeDaemon(t, func(int, string) string { return "errno=0\n\n" }))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if err := c.program(t.Context(), change{remove: []Key{{1}}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestClosedConnectionRefuses(t *testing.T) {
	c := dialFake(t, fakeDaemon(t, func(int, string) string { return "errno=0\n\n" }))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.read(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyThereIsGone(t *testing.T) {
	if _, err := dialUAPI(t.Context(), "/nonexistent/socket"); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}
