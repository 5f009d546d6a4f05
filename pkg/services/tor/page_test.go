package tor

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// paged serves the maintenance page for so many connections at a time.
func paged(t *testing.T, slots int) (server *http.Server, dial func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server = pageServer(func() string { return "<b>" }, slog.New(slog.DiscardHandler))
	server.ReadHeaderTimeout, server.ReadTimeout = 300*time.Millisecond, 300*time.Millisecond
	done := make(chan struct{})
	go func() { _ = server.Serve(limited{l, newSlots(slots, slots)}); close(done) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return server, func() net.Conn {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
}

func TestThePageAnswersEveryRequestAndCloses(t *testing.T) {
	_, dial := paged(t, 4)
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "POST /a?b HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n"} {
		c := dial()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 503 || !strings.Contains(string(body), "&lt;b&gt;") || r.Header.Get("Retry-After") == "" {
			t.Errorf("%q: %s, %v", request, r.Status, err)
		}
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%q: the connection stays open: %v", request, err)
		}
	}
}

func TestASlowReaderOfThePageIsCutOff(t *testing.T) {
	server, dial := paged(t, 4)
	if real := pageServer(nil, slog.New(slog.DiscardHandler)); real.ReadHeaderTimeout <= 0 || real.WriteTimeout <= 0 || real.MaxHeaderBytes > 64<<10 {
		t.Errorf("no limits: %+v", server)
	}
	c := dial()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil { // until it is closed
		t.Errorf("a request that never ends: %v", err)
	}
}

func TestTooManyConnectionsAreClosedAndTheirPlacesComeBack(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	few := limited{l, newSlots(3, 2)}
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := few.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	dial()
	dial()
	first, second := <-accepted, <-accepted
	if _, err := dial().Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("the third: %v", err)
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if c, err := other.Dial("tcp4", l.Addr().String()); err != nil {
		t.Error(err)
	} else {
		_ = (<-accepted).Close() // one device does not take all
		_ = c.Close()
	}
	_ = first.Close()
	_ = first.Close() // its place comes back once
	dial()
	third := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("one place was given back twice")
	}
	_, _ = second.Close(), third.Close()
	if few.slots.taken != 0 || len(few.slots.owners) != 0 {
		t.Errorf("places are lost: %d, %v", few.slots.taken, few.slots.owners)
	}
	_ = l.Close()
	if _, open := <-accepted; open {
		t.Error("the listener goes on")
	}
}
