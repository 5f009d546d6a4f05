package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func TestAStreamEndsNilWhenItsReaderIsDone(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := 0
	err := count.Follow(ctx, w.conn(t), &countReq{To: 3}, func(e countEvent) error {
		if got++; e.N == 2 {
			cancel()
		}
		return nil
	})
	if err != nil || got != 3 {
		t.Errorf("got %d events, %v", got, err)
	}
	if err := <-w.stream; err != nil {
		t.Errorf("the handler ended with %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := count.Follow(ended, w.conn(t), nil, func(countEvent) error { return nil }); err != nil {
		t.Errorf("context that had ended: %v", err)
	}
}

func TestAStreamTellsWhyItEnds(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	got := 0
	count1 := func(countEvent) error { got++; return nil }
	err := count.Follow(t.Context(), w.conn(t), &countReq{To: 2, Fail: true}, count1)
	if !errors.Is(err, fault.Exhausted) || fault.ReasonOf(err) != "numbers" || got != 2 {
		t.Errorf("after %d events: %#v", got, err)
	}
	enough := errors.New("enough")
	if err := count.Follow(t.Context(), w.conn(t), &countReq{To: 2}, func(countEvent) error { return enough }); err != enough {
		t.Errorf("reader's own error: %v", err)
	}
	if err := count.Follow(t.Context(), w.conn(t), &countReq{Name: "x\x00"}, count1); !errors.Is(err, fault.Invalid) {
		t.Errorf("bad request: %v", err)
	}
	// An event larger than a reader takes.
	if err := count.Follow(t.Context(), w.conn(t), &countReq{To: 1, Pad: 17 << 20}, count1); !errors.Is(err, fault.Unavailable) {
		t.Errorf("huge event: %v", err)
	}
}

func TestAStreamEndsWithTheServer(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	seen := make(chan struct{}, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- count.Follow(t.Context(), w.conn(t), &countReq{To: 1}, func(countEvent) error {
			seen <- struct{}{}
			return nil
		})
	}()
	<-seen
	began := time.Now()
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("the drain took %v", d)
	}
	if err := <-ended; !errors.Is(err, fault.Unavailable) || fault.From(err).RetryAfter == 0 {
		t.Errorf("got %#v, want unavailable with a time to come back", err)
	}
}

func TestASlowReaderIsDisconnected(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{SendTimeout: 100 * time.Millisecond})
	c := w.dial(t)
	if _, err := io.WriteString(c, "GET /v1/count?to=1000000&pad=10000 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// Nothing is read: the socket fills, and one send does not end in time.
	select {
	case err := <-w.stream:
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
			t.Errorf("the handler ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the handler still sends")
	}
	if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection did not end: %v", err)
	}
}

func TestAStreamOfAReaderWhoGoesAwayEnds(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	c := w.dial(t)
	if _, err := io.WriteString(c, "GET /v1/count HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if a, err := io.ReadAtLeast(c, make([]byte, 512), 10); err != nil {
		t.Fatal(a, err)
	}
	_ = c.Close()
	if err := <-w.stream; err != nil {
		t.Errorf("the handler ended with %v", err)
	}
}

func TestRunningCallsEndBeforeTheServer(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	silent := w.dial(t) // somebody who has connected and says nothing
	idle := w.dial(t)   // somebody who has called and may again
	if _, err := io.WriteString(idle, "GET /v1/things HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, idle, "GET")
	result := make(chan error, 1)
	go func() {
		_, err := hold.Call(t.Context(), w.conn(t), &holdReq{})
		result <- err
	}()
	<-w.holds
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- w.stop() }()
	for name, c := range map[string]net.Conn{"silent": silent, "idle": idle} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s connection: %v", name, err)
		}
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("connections without a call were held for %v", d)
	}
	select {
	case err := <-stopped:
		t.Fatalf("the server ended with a call running: %v", err)
	default:
	}
	w.let <- struct{}{}
	if err := <-result; err != nil {
		t.Errorf("the running call: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("serve: %v", err)
	}
}
