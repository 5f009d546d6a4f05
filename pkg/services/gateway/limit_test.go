package gateway_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
)

// ended tells whether the other side has closed the connection.
func ended(t *testing.T, c net.Conn) bool {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err := c.Read(make([]byte, 1))
	ne, ok := err.(net.Error)
	return !(ok && ne.Timeout())
}

func TestTheLongestIdleMakesRoom(t *testing.T) {
	w := newWorld(t, 3)
	w.startKeys()
	w.startAuth()
	w.ready()
	w.http.CloseIdleConnections()
	release := make(chan struct{})
	w.onLogin = func(context.Context, *auth.LoginRequest) (*client.Tokens, error) {
		<-release
		return &client.Tokens{}, nil
	}
	busy := make(chan answer, 1)
	go func() {
		busy <- w.callFrom(t.Context(), w.client(), "POST", "/auth/login", "", `{"kid":"a","enc":"b","ciphertext":"c"}`)
	}()
	eventually(t, "the sign-in", func() bool { return w.counted("auth") == 1 })
	first, second := w.raw(), w.raw() // idle; three in all
	third := w.raw()
	if !ended(t, first) {
		t.Error("the longest idle one was kept")
	}
	fourth := w.raw()
	if !ended(t, second) {
		t.Error("the second was kept")
	}
	for range 5 { // one used lately outlives those who never ask
		res := w.callFrom(t.Context(), w.client(), "GET", "/health", "", "")
		if res.status != 200 {
			t.Errorf("got %d %v", res.status, res.err)
		}
	}
	_, _ = third, fourth
	close(release)
	if a := <-busy; a.status != 200 {
		t.Errorf("the busy one was closed: %d %v", a.status, a.err)
	}
}

// When all are busy, it is the one that has taken longest: somebody who sends a
// byte a second keeps nobody out.
func TestTheLongestBusyMakesRoomWhenNobodyIsIdle(t *testing.T) {
	w := newWorld(t, 3)
	w.startKeys()
	w.startAuth()
	w.ready()
	w.http.CloseIdleConnections()
	var slow []*tls.Conn
	for range 4 {
		c := w.raw()
		must(t, second(io.WriteString(c, "POST /auth/reauth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")))
		must(t, second(io.ReadFull(c, make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))))) // busy now
		slow = append(slow, c)
	}
	if !ended(t, slow[0]) {
		t.Error("the longest busy one was kept")
	}
	start := time.Now()
	if a := w.callFrom(t.Context(), w.client(), "GET", "/health", "", ""); a.status != 200 || time.Since(start) > 3*time.Second {
		t.Errorf("got %d %v after %s", a.status, a.err, time.Since(start))
	}
}

func TestThousandsOfIdleConnectionsAndOthersAreServed(t *testing.T) {
	const many, most = 2000, 200
	var files syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if files.Cur < many+most+500 {
		t.Skipf("only %d files may be open", files.Cur)
	}
	w := newWorld(t, most)
	w.startKeys()
	w.startSessions()
	w.ready()
	var mu sync.Mutex
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	var dialing sync.WaitGroup
	for g := range 8 {
		dialing.Go(func() {
			for i := range many / 8 {
				var c net.Conn
				var err error
				if i%10 == 0 && g == 0 { // a whole handshake costs; most do without
					c, err = tls.Dial("tcp", w.addr, w.tlsConfig())
				} else {
					c, err = net.Dial("tcp", w.addr)
				}
				if err != nil {
					continue // made room at once
				}
				mu.Lock()
				idle = append(idle, c)
				mu.Unlock()
			}
		})
	}
	served := 0
	for range 40 { // in the middle of it
		if a := w.callFrom(t.Context(), w.client(), "GET", "/health", "", ""); a.status == 200 {
			served++
		}
	}
	if served < 36 { // one that idles for an instant may be the longest idle
		t.Errorf("%d of 40 were served meanwhile", served)
	}
	dialing.Wait()
	if len(idle) < many*9/10 {
		t.Errorf("only %d connections were made", len(idle))
	}
	for range 20 { // and after, on connections of their own
		start := time.Now()
		if a := w.callFrom(t.Context(), w.client(), "GET", "/health", "", ""); a.status != 200 || time.Since(start) > 2*time.Second {
			t.Errorf("got %d %v after %s", a.status, a.err, time.Since(start))
		}
	}
	open := 0
	for _, c := range idle {
		if raw, ok := c.(*net.TCPConn); ok {
			_ = raw.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := raw.Read(make([]byte, 1))
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				open++
			}
		}
	}
	if open > most {
		t.Errorf("%d connections are held, at most %d may", open, most)
	}
}
