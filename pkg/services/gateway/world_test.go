package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/services/gateway"
)

// world is a gateway behind a real TLS listener, and its siblings behind real
// Unix sockets.
type world struct {
	t    testing.TB
	dir  string
	addr string
	http *http.Client

	tlsKey *ecdsa.PrivateKey
	leaf   *x509.Certificate
	signer ed25519.PrivateKey

	mu     sync.Mutex
	tokens map[string]ed25519.PublicKey // published
	login  []keys.LoginKey
	calls  map[string]int

	// What siblings answer; nil is a plain yes.
	onLogin func(context.Context, *auth.LoginRequest) (*client.Tokens, error)
	onOpen  func(context.Context, *sessions.InitiateRequest) (*client.Initiated, error)
	onBeats func(context.Context, *sessions.BeatRequest) (*sessions.BeatReply, error)
	onClose func(context.Context, *sessions.CloseRequest) (*sessions.ClosedReply, error)
	onLanes func(context.Context, *sessions.LanesRequest) (*client.LaneStates, error)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

const kid = "key-1"

// newWorld runs the gateway; its siblings run when they are started.
func newWorld(t testing.TB, maxConnections int) *world {
	t.Helper()
	w := &world{t: t, calls: map[string]int{}, login: []keys.LoginKey{{KID: "login-1", KEM: 0x20, KDF: 1, AEAD: 2, PublicKey: "AAAA"}}}
	var err error
	w.dir, err = os.MkdirTemp("", "gate") // t.TempDir is too long for a socket
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(w.dir) })
	w.tlsKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, w.tlsKey.Public(), w.tlsKey)
	must(t, err)
	w.leaf, err = x509.ParseCertificate(der)
	must(t, err)
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	w.signer, w.tokens = priv, map[string]ed25519.PublicKey{kid: pub}

	conn := func(name string) *rpc.Conn {
		c := rpc.DialUnix(name, w.socket(name), rpc.Options{})
		t.Cleanup(c.CloseIdle)
		return c
	}
	g := gateway.New(gateway.Config{MaxConnections: maxConnections}, gateway.Deps{Keys: conn("keys"), Auth: conn("auth"), Sessions: conn("sessions")})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.addr = l.Addr().String()
	w.background(func(ctx context.Context) error { return g.Run(ctx, l) })
	w.http = w.client()
	return w
}

// running is a world in which everybody is there.
func running(t testing.TB) *world {
	t.Helper()
	w := newWorld(t, 100)
	w.startKeys()
	w.startAuth()
	w.startSessions()
	w.ready()
	return w
}

func (w *world) ready() {
	w.t.Helper()
	eventually(w.t, "the gateway", func() bool { return w.call("GET", "/health", "", "").status == http.StatusOK })
}

// background runs fn until the test ends, or the function given is called.
func (w *world) background(fn func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("server: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) socket(name string) string { return filepath.Join(w.dir, name+".sock") }

func (w *world) serve(name string, register func(*rpc.Server)) (stop func()) {
	w.t.Helper()
	s := rpc.NewServer(rpc.ServerConfig{Name: name, Identify: func(rpc.PeerCred) (rpc.Caller, error) {
		return rpc.Caller{Name: "gateway", Access: rpc.Internal}, nil
	}})
	register(s)
	l, err := net.Listen("unix", w.socket(name))
	must(w.t, err)
	return w.background(func(ctx context.Context) error { return s.Serve(ctx, l) })
}

func (w *world) count(op string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[op]++
}

func (w *world) counted(op string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[op]
}

func (w *world) startKeys() (stop func()) {
	return w.serve("keys", func(s *rpc.Server) {
		rpc.Handle(s, keys.Login, func(context.Context, *struct{}) (*keys.LoginKeys, error) {
			w.count("login")
			w.mu.Lock()
			defer w.mu.Unlock()
			return &keys.LoginKeys{Keys: append([]keys.LoginKey{}, w.login...)}, nil
		})
		rpc.Handle(s, keys.Verifiers, func(context.Context, *struct{}) (*keys.VerifierSet, error) {
			w.count("verifiers")
			w.mu.Lock()
			defer w.mu.Unlock()
			set := &keys.VerifierSet{Issuer: "vpnd", Keys: []keys.Verifier{}}
			for kid, k := range w.tokens {
				set.Keys = append(set.Keys, keys.Verifier{KID: kid, Algorithm: "EdDSA", PublicKey: k})
			}
			return set, nil
		})
		rpc.Handle(s, keys.TLSCertificate, func(context.Context, *struct{}) (*keys.Certificate, error) {
			return &keys.Certificate{Chain: [][]byte{w.leaf.Raw}, Pin: "sha256/x"}, nil
		})
		rpc.Handle(s, keys.SignTLS, func(_ context.Context, r *keys.SignTLSRequest) (*keys.Signature, error) {
			w.count("sign")
			sig, err := ecdsa.SignASN1(rand.Reader, w.tlsKey, r.Body.Digest)
			return &keys.Signature{Signature: sig}, err
		})
	})
}

func (w *world) startAuth() (stop func()) {
	tokens := &client.Tokens{AccessToken: "access", TokenType: "Bearer", RefreshToken: "refresh", DeviceID: "dev_1"}
	return w.serve("auth", func(s *rpc.Server) {
		rpc.Handle(s, auth.Login, func(ctx context.Context, r *auth.LoginRequest) (*client.Tokens, error) {
			w.count("auth")
			if w.onLogin != nil {
				return w.onLogin(ctx, r)
			}
			return tokens, nil
		})
		rpc.Handle(s, auth.Reauth, func(context.Context, *auth.RefreshRequest) (*client.Tokens, error) {
			w.count("auth")
			return tokens, nil
		})
		rpc.Handle(s, auth.Logout, func(context.Context, *auth.RefreshRequest) (*rpc.None, error) {
			w.count("auth")
			return nil, nil
		})
	})
}

func (w *world) startSessions() (stop func()) {
	return w.serve("sessions", func(s *rpc.Server) {
		rpc.Handle(s, sessions.Initiate, func(ctx context.Context, r *sessions.InitiateRequest) (*client.Initiated, error) {
			w.count("sessions")
			if w.onOpen != nil {
				return w.onOpen(ctx, r)
			}
			return &client.Initiated{SessionID: "ses_1"}, nil
		})
		rpc.Handle(s, sessions.Heartbeat, func(ctx context.Context, r *sessions.BeatRequest) (*sessions.BeatReply, error) {
			w.count("sessions")
			if w.onBeats != nil {
				return w.onBeats(ctx, r)
			}
			return &sessions.BeatReply{HeartbeatTTL: 90, Results: make([]sessions.BeatResult, len(r.Body.Beats))}, nil
		})
		rpc.Handle(s, sessions.Close, func(ctx context.Context, r *sessions.CloseRequest) (*sessions.ClosedReply, error) {
			w.count("sessions")
			if w.onClose != nil {
				return w.onClose(ctx, r)
			}
			return &sessions.ClosedReply{}, nil
		})
		rpc.Handle(s, sessions.GetLanes, func(ctx context.Context, r *sessions.LanesRequest) (*client.LaneStates, error) {
			w.count("sessions")
			if w.onLanes != nil {
				return w.onLanes(ctx, r)
			}
			return &client.LaneStates{VPN: client.LaneState{State: "up"}, Tor: client.LaneState{State: "unknown"}}, nil
		})
	})
}

// client makes an HTTP client with connections of its own.
func (w *world) client() *http.Client {
	tr := &http.Transport{TLSClientConfig: w.tlsConfig(), MaxIdleConnsPerHost: 100, DisableCompression: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func (w *world) tlsConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(w.leaf)
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error { // pinned, as our client does
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool})
		return err
	}}
}

type answer struct {
	status  int
	header  http.Header
	body    string
	problem fault.Problem
	err     error
}

func (w *world) call(method, path, token, body string) answer {
	return w.callFrom(context.Background(), w.http, method, path, token, body)
}

func (w *world) callFrom(ctx context.Context, c *http.Client, method, path, token, body string) (a answer) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+w.addr+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{err: err}
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	a = answer{status: res.StatusCode, header: res.Header, body: string(data), err: err}
	_ = json.Unmarshal(data, &a.problem)
	return a
}

// wantProblem checks that an answer is a problem in every respect.
func wantProblem(t testing.TB, what string, a answer, status int, code fault.Code, reason string) {
	t.Helper()
	p := a.problem
	if a.err != nil || a.status != status || a.header.Get("Content-Type") != fault.ContentType || p.Status != status || p.Code != code || p.Reason != reason || p.Detail == "" || p.RequestID == "" {
		t.Errorf("%s: got %d %s %s %v, want %d %s %q", what, a.status, a.header.Get("Content-Type"), a.body, a.err, status, code, reason)
	}
	if wants := status == 429 || status == 503; wants != (a.header.Get("Retry-After") != "") {
		t.Errorf("%s: Retry-After %q", what, a.header.Get("Retry-After"))
	}
	if (status == 401) != (a.header.Get("WWW-Authenticate") != "") {
		t.Errorf("%s: WWW-Authenticate %q", what, a.header.Get("WWW-Authenticate"))
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// goodClaims are those of a token that is accepted.
func goodClaims() jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{"iss": "vpnd", "aud": "vpnd", "sub": "usr_1", "device_id": "dev_1", "jti": "x",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(15 * time.Minute).Unix()}
}

func sign(t testing.TB, method jwt.SigningMethod, key any, kid any, c jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, c)
	if kid != nil {
		tok.Header["kid"] = kid
	}
	s, err := tok.SignedString(key)
	must(t, err)
	return s
}

func (w *world) token(change ...func(jwt.MapClaims)) string {
	w.t.Helper()
	c := goodClaims()
	for _, fn := range change {
		fn(c)
	}
	return sign(w.t, jwt.SigningMethodEdDSA, w.signer, kid, c)
}
