package rpc_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// fakeServer answers the first request of every connection with raw bytes.
func fakeServer(t *testing.T, say func(net.Conn)) *rpc.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				say(c)
			}()
		}
	}()
	conn := rpc.DialUnix("fake", path, rpc.Options{})
	t.Cleanup(conn.CloseIdle)
	return conn
}

func readRequest(c net.Conn) {
	if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	forever := strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 100)
	for name, tc := range map[string]struct {
		say  func(net.Conn)
		want fault.Code
	}{
		"noise":    {func(c net.Conn) { readRequest(c); fmt.Fprint(c, "SSH-2.0-x\r\n") }, fault.Unavailable},
		"not JSON": {func(c net.Conn) { readRequest(c); fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") }, fault.Unavailable},
		"no problem": {func(c net.Conn) {
			readRequest(c)
			fmt.Fprint(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello")
		}, fault.NotFound},
		"a redirect": {func(c net.Conn) { readRequest(c); fmt.Fprint(c, "HTTP/1.1 307 x\r\nLocation: /\r\n\r\n") }, fault.Internal},
		"interim only": {func(c net.Conn) {
			readRequest(c)
			fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 409 Conflict\r\n\r\n")
		}, fault.Conflict},
		"endless head": {func(c net.Conn) {
			readRequest(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, forever)
			}
		}, fault.Unavailable},
		"early": {func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
		}, fault.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			req := &mixedReq{ID: "a", Body: mixedBody{Name: strings.Repeat("x", 60_000)}}
			_, err := mixed.Call(t.Context(), fakeServer(t, tc.say), req)
			if fault.CodeOf(err) != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestAnAnswerCutShortIsAskedForAgainIfThatIsHarmless(t *testing.T) {
	var asked atomic.Int32
	conn := fakeServer(t, func(c net.Conn) {
		readRequest(c)
		if asked.Add(1)%2 == 1 {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"items\":")
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{\"items\":[1],\"total\":1}")
	})
	if got, err := list.Call(t.Context(), conn, nil); err != nil || got.Total != 1 {
		t.Errorf("repeatable: %v, %v", got, err)
	}
	if _, err := greet.Call(t.Context(), conn, greeting("x")); !errors.Is(err, fault.Unavailable) || asked.Load() != 3 {
		t.Errorf("not repeatable: %v after %d requests", err, asked.Load())
	}
}

func TestWhatWasDeletedByALostCallIsDeleted(t *testing.T) {
	var asked atomic.Int32
	conn := fakeServer(t, func(c net.Conn) {
		readRequest(c)
		if asked.Add(1)%2 == 0 {
			fmt.Fprint(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		}
	})
	if _, err := drop.Call(t.Context(), conn, nil); err != nil || asked.Load() != 2 {
		t.Errorf("after %d requests: %v", asked.Load(), err)
	}
	asked.Store(1)
	if _, err := drop.Call(t.Context(), conn, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("what was never there: %v", err)
	}
	asked.Store(0)
	if _, err := list.Call(t.Context(), conn, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("something else than a deletion: %v", err)
	}
}

func TestSilenceIsNotWaitedForForEver(t *testing.T) {
	conn := fakeServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	op, stream := list, count
	op.Timeout, stream.Timeout = 50*time.Millisecond, 50*time.Millisecond
	if _, err := op.Call(t.Context(), conn, nil); !errors.Is(err, fault.Timeout) {
		t.Errorf("call: %v", err)
	}
	if err := stream.Follow(t.Context(), conn, nil, func(countEvent) error { return nil }); !errors.Is(err, fault.Timeout) {
		t.Errorf("stream: %v", err)
	}
}

// pipeConn has neither deadlines nor a descriptor, as a process's standard
// streams have none.
type pipeConn struct{ net.Conn }

func (pipeConn) SetDeadline(time.Time) error      { return nil }
func (pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (pipeConn) SetWriteDeadline(time.Time) error { return nil }

func TestAnyConnectionWillDo(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	dialed := 0
	conn := rpc.DialUnix("svc", "", rpc.Options{Dial: func(context.Context) (net.Conn, error) {
		dialed++
		c, err := net.Dial("unix", w.path)
		return pipeConn{c}, err
	}})
	defer conn.CloseIdle()
	for range 3 {
		if _, err := greet.Call(t.Context(), conn, greeting("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := drop.Call(t.Context(), conn, nil); !errors.Is(err, fault.Denied) {
			t.Fatal(err)
		}
	}
	if dialed != 1 {
		t.Errorf("%d connections for calls one after the other", dialed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := hold.Call(ctx, conn, &holdReq{})
		result <- err
	}()
	<-w.holds
	cancel()
	if err := <-result; !errors.Is(err, fault.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	conn = rpc.DialUnix("svc", "", rpc.Options{Dial: func(context.Context) (net.Conn, error) {
		return nil, fault.New(fault.Invalid, "no such host").WithHint("spell it")
	}})
	if _, err := list.Call(t.Context(), conn, nil); !errors.Is(err, fault.Invalid) || fault.From(err).Hint != "spell it" {
		t.Errorf("the dialer's own words: %v", err)
	}
}

func TestThePoolIsBounded(t *testing.T) {
	var open, most atomic.Int32
	w := newWorld(t, rpc.ServerConfig{ConnState: func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			most.Store(max(most.Load(), open.Add(1)))
		case http.StateClosed:
			open.Add(-1)
		}
	}})
	conn := w.conn(t)
	const n = 90
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := hold.Call(t.Context(), conn, &holdReq{}); err != nil {
				t.Error(err)
			}
		})
	}
	for range n {
		<-w.holds
	}
	close(w.let)
	wg.Wait()
	eventually(t, "connections to close", func() bool { return open.Load() <= 64 })
	if most.Load() != n || open.Load() < 30 {
		t.Errorf("%d connections at once, %d kept", most.Load(), open.Load())
	}
	conn.CloseIdle()
	eventually(t, "connections to close", func() bool { return open.Load() == 0 })
}

func selfSigned(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestCallsOverTLSOutliveTheServer(t *testing.T) {
	cert, pool := selfSigned(t)
	serve := func(addr string) (string, func()) {
		s := rpc.NewServer(rpc.ServerConfig{Name: "svc", TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
		rpc.Handle(s, postOpen, func(ctx context.Context, _ *struct{}) (*greetResp, error) {
			return &greetResp{Caller: rpc.CallerFrom(ctx).Remote}, nil
		})
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		return l.Addr().String(), func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	addr, stop := serve("127.0.0.1:0")
	_, port, _ := net.SplitHostPort(addr)
	conn := rpc.DialTLS("localhost:"+port, &tls.Config{RootCAs: pool}, rpc.Options{Patience: -1, Dial: func(context.Context) (net.Conn, error) {
		return net.Dial("tcp", addr)
	}})
	defer conn.CloseIdle()
	for range 3 { // on a connection that a server that is gone has left behind
		var first string
		for range 3 {
			got, err := postOpen.Call(t.Context(), conn, nil)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = got.Caller
			}
			if !strings.HasPrefix(got.Caller, "127.0.0.1:") || got.Caller != first {
				t.Errorf("caller %q after %q: want one connection", got.Caller, first)
			}
		}
		stop()
		_, stop = serve(addr)
	}
	stop()
	if _, err := postOpen.Call(t.Context(), conn, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
	_, stop = serve(addr)
	defer stop()
	stranger := rpc.DialTLS(addr, nil, rpc.Options{Patience: -1})
	if _, err := postOpen.Call(t.Context(), stranger, nil); !errors.Is(err, fault.Denied) {
		t.Errorf("a certificate nobody knows: %v", err)
	}
}

var postOpen = rpc.Op[struct{}, greetResp]{Info: rpc.Info{ID: "post", Method: "POST", Path: "/v1/open", Access: rpc.Public}}
