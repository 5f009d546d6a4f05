package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
)

func TestOnlyTLS13AndHTTP11(t *testing.T) {
	w := running(t)
	dial := func(change func(*tls.Config)) (tls.ConnectionState, error) {
		cfg := w.tlsConfig()
		change(cfg)
		c, err := tls.Dial("tcp", w.addr, cfg)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer c.Close()
		return c.ConnectionState(), nil
	}
	got, err := dial(func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} })
	must(t, err)
	if got.Version != tls.VersionTLS13 || got.NegotiatedProtocol != "http/1.1" || !bytes.Equal(got.PeerCertificates[0].Raw, w.leaf.Raw) {
		t.Errorf("version %x, protocol %q", got.Version, got.NegotiatedProtocol)
	}
	if n := w.counted("sign"); n == 0 {
		t.Error("keys signed nothing")
	}
	if _, err := dial(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	if _, err := dial(func(c *tls.Config) { c.NextProtos = []string{"h2"} }); err == nil {
		t.Error("HTTP/2 is spoken")
	}
	res, err := http.Get("http://" + w.addr + "/health")
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != 400 || res.Header.Get("Content-Type") != fault.ContentType {
		t.Errorf("plain HTTP: %d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
}

func TestClientsWaitForAServerThatIsStarting(t *testing.T) {
	w := newWorld(t, 100)
	early := make(chan answer, 1)
	start := time.Now()
	go func() { early <- w.call("GET", "/health", "", "") }()
	eventually(t, "the connection", func() bool { return time.Since(start) > 300*time.Millisecond })
	w.startKeys()
	if a := <-early; a.err != nil || a.status != 200 && a.status != 503 {
		t.Errorf("got %d %s %v", a.status, a.body, a.err)
	}
	w.ready()
}

func TestHealthAndLoginKeys(t *testing.T) {
	w := newWorld(t, 100)
	w.mu.Lock()
	good := w.login
	w.login = nil
	w.mu.Unlock()
	w.startKeys()
	eventually(t, "an answer", func() bool { return w.call("GET", "/health", "", "").err == nil })
	wantProblem(t, "health", w.call("GET", "/health", "", ""), 503, fault.Unavailable, "keys_not_ready")
	wantProblem(t, "keys", w.call("GET", "/auth/pubkey", "", ""), 503, fault.Unavailable, "keys_not_ready")
	w.mu.Lock()
	w.login = append(good, keys.LoginKey{KID: "login-2", KEM: 0x647a, KDF: 1, AEAD: 2, PublicKey: "BBBB"})
	w.mu.Unlock()
	w.ready()
	if a := w.call("GET", "/auth/pubkey", "", ""); a.status != 200 ||
		!strings.HasPrefix(a.body, `{"keys":[{"kid":"login-1","kem_id":32,"kdf_id":1,"aead_id":2,"public_key":"AAAA","expires_at":`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := w.call("GET", "/health", "", ""); !strings.HasPrefix(a.body, `{"status":"ok","version":"`) {
		t.Errorf("got %s", a.body)
	}
	before := w.counted("login")
	for range 50 {
		if a := w.call("GET", "/auth/pubkey", "", ""); a.status != 200 {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	if n := w.counted("login") - before; n > 1 {
		t.Errorf("keys was asked %d times", n)
	}
}

// raw speaks to the gateway below HTTP.
func (w *world) raw() *tls.Conn {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.addr, w.tlsConfig())
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSlowAndSilentClients(t *testing.T) {
	w := running(t)
	slowHeader, slowBody, deaf := w.raw(), w.raw(), w.raw()
	must(t, second(fmt.Fprintf(slowHeader, "GET /health HTTP/1.1\r\nHost: x\r\n")))
	must(t, second(fmt.Fprintf(slowBody, "POST /auth/reauth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")))
	silent, err := net.Dial("tcp", w.addr) // not even a handshake
	must(t, err)
	defer silent.Close()
	go func() { // asks and asks, and never reads
		line := bytes.Repeat([]byte("GET /auth/pubkey HTTP/1.1\r\nHost: x\r\n\r\n"), 1000)
		for {
			if _, err := deaf.Write(line); err != nil {
				return
			}
		}
	}()
	for range 20 { // everybody else is served
		start := time.Now()
		if a := w.call("GET", "/health", "", ""); a.status != 200 || time.Since(start) > 2*time.Second {
			t.Errorf("got %d after %s: %v", a.status, time.Since(start), a.err)
		}
	}
	for name, c := range map[string]net.Conn{"slow header": slowHeader, "slow body": slowBody, "silent": silent} {
		must(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
		start := time.Now()
		got, err := io.ReadAll(c)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
		if len(got) > 0 && !strings.Contains(string(got), " 408 ") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func second(_ int, err error) error { return err }

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	w := running(t)
	c := w.raw()
	must(t, second(fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")))
	r := bufio.NewReader(c)
	for _, want := range []int{200, 404, 200} {
		res, err := http.ReadResponse(r, nil)
		must(t, err)
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != want {
			t.Errorf("got %d, want %d", res.StatusCode, want)
		}
	}
}
