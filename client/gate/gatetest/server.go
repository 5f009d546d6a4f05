// Package gatetest is a VPN server in memory for tests of the client: it speaks
// the client API over TLS, opens sealed sign-ins, rotates tokens as the real one
// does, and can be told to misbehave. It programs no tunnel; a test that wants
// one is told of every session. A *Server may be used concurrently.
package gatetest

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"vpnd/client/gate"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// Config says what the server is like. The zero value has user alice with
// password "correct horse".
type Config struct {
	Username, Password string
	AccessTTL          time.Duration // 15 min when zero
	HeartbeatTTL       int           // 90 when zero
	Lanes              client.Lanes  // what initiate answers

	// LaneStates is what is said of the lanes; nil is an old server that knows no
	// such question.
	LaneStates *client.LaneStates

	// Opened and Closed are called, if set, when a session opens and ends.
	Opened func(publicKey string) error
	Closed func(publicKey string)
}

// Server is a VPN server.
type Server struct {
	cfg  Config
	cert tls.Certificate
	pin  gate.Pin
	kems []loginKey

	mu       sync.Mutex
	stop     context.CancelFunc
	done     chan error
	addr     net.Addr
	access   map[string]id.Device
	refresh  map[string]id.Device // living ones
	spent    map[string]id.Device
	devices  map[id.Device]client.LoginDevice
	sessions map[id.Device]string // device → public key
	closedBy map[id.Device]string // why a session is closed
	nonces   map[string]bool
	calls    map[string]int
	faults   map[string][]error
	after    map[string]func() // run once after the next call of an operation was handled
	conns    []net.Conn
}

type loginKey struct {
	pub  keys.LoginKey
	priv hpke.PrivateKey
}

// New makes a server with keys of its own that does not listen yet.
func New(cfg Config) (*Server, error) {
	if cfg.Username == "" {
		cfg.Username, cfg.Password = "alice", "correct horse"
	}
	if cfg.AccessTTL == 0 {
		cfg.AccessTTL = 15 * time.Minute
	}
	if cfg.HeartbeatTTL == 0 {
		cfg.HeartbeatTTL = 90
	}
	s := &Server{
		cfg: cfg, access: map[string]id.Device{}, refresh: map[string]id.Device{}, spent: map[string]id.Device{},
		devices: map[id.Device]client.LoginDevice{}, sessions: map[id.Device]string{}, closedBy: map[id.Device]string{},
		nonces: map[string]bool{}, calls: map[string]int{}, faults: map[string][]error{}, after: map[string]func(){},
	}
	for _, kem := range []hpke.KEM{hpke.MLKEM768X25519(), hpke.DHKEM(ecdh.X25519())} {
		priv, err := kem.GenerateKey()
		if err != nil {
			return nil, err
		}
		s.kems = append(s.kems, loginKey{keys.LoginKey{
			KID: fmt.Sprintf("login-%04x", kem.ID()), KEM: kem.ID(), KDF: 1, AEAD: 2,
			PublicKey: base64.StdEncoding.EncodeToString(priv.PublicKey().Bytes()), ExpiresAt: time.Now().Add(24 * time.Hour),
		}, priv})
	}
	return s, s.NewCertificate()
}

// NewCertificate gives the server another TLS key, and so another pin.
func (s *Server) NewCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	s.pin = gate.PinOf(leaf)
	return nil
}

// Pin is the pin of the certificate.
func (s *Server) Pin() gate.Pin {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pin
}

// Listen serves on a TCP address; an empty one means the address of before, or a
// free port of 127.0.0.1.
func (s *Server) Listen(addrs ...string) error {
	if len(addrs) == 0 {
		addrs = []string{"127.0.0.1:0"}
		if s.addr != nil {
			addrs[0] = s.addr.String()
		}
	}
	srv := rpc.NewServer(rpc.ServerConfig{Name: "gatetest", Version: "test", Guard: s.guard, TLS: &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return &s.cert, nil
		},
	}, ConnState: func(c net.Conn, st http.ConnState) {
		if st == http.StateNew {
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	}, Around: s.around})
	s.register(srv)
	var listeners []net.Listener
	for _, a := range addrs {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan error, 1)
	s.addr = listeners[0].Addr()
	go func() { s.done <- srv.Serve(ctx, listeners...) }()
	return nil
}

// Stop ends serving; Listen begins again with the same state.
func (s *Server) Stop() error {
	if s.stop == nil {
		return nil
	}
	s.stop()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.stop = nil
	return <-s.done
}

// Address is where it listens.
func (s *Server) Address() gate.Address {
	a := s.addr.(*net.TCPAddr)
	return gate.Address{Host: a.IP.String(), Port: uint16(a.Port)}
}

// Calls tells how often an operation was handled.
func (s *Server) Calls(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// Fail makes the next calls of an operation fail, before they do anything.
func (s *Server) Fail(op string, errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[op] = append(s.faults[op], errs...)
}

// LoseAnswer has the next call of an operation handled and its answer lost.
func (s *Server) LoseAnswer(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after[op] = func() {
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.conns = nil
	}
}

// End closes the session of every device for a reason.
func (s *Server) End(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.sessions {
		s.end(d, why)
	}
}

// ExpireAccess makes every access token that was given unacceptable.
func (s *Server) ExpireAccess() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

// Revoke makes every refresh token unacceptable.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.refresh)
}

// Sessions lists the public keys of open sessions.
func (s *Server) Sessions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range s.sessions {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Devices tells how many devices ever signed in.
func (s *Server) Devices() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.devices)
}

func (s *Server) end(d id.Device, why string) {
	key := s.sessions[d]
	delete(s.sessions, d)
	s.closedBy[d] = why
	if s.cfg.Closed != nil && key != "" {
		s.cfg.Closed(key)
	}
}

type deviceKey struct{}

func (s *Server) guard(ctx context.Context, op rpc.Info, r rpc.Request) (context.Context, error) {
	if op.Access != rpc.Bearer {
		return ctx, nil
	}
	token, _ := strings.CutPrefix(r.Header("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.access[token]
	if !ok {
		return ctx, fault.New(fault.Unauthenticated, "the access token is not accepted").WithReason("invalid_token")
	}
	return context.WithValue(ctx, deviceKey{}, d), nil
}

func (s *Server) around(ctx context.Context, op rpc.Info, _ any, next func(context.Context) error) error {
	s.mu.Lock()
	s.calls[op.ID]++
	var err error
	if f := s.faults[op.ID]; len(f) > 0 {
		err, s.faults[op.ID] = f[0], f[1:]
	}
	s.mu.Unlock()
	if err == nil {
		err = next(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fn := s.after[op.ID]; fn != nil {
		delete(s.after, op.ID)
		fn()
	}
	return err
}

func (s *Server) register(srv *rpc.Server) {
	rpc.Handle(srv, client.GetPubkey, func(context.Context, *struct{}) (*keys.LoginKeys, error) {
		var set keys.LoginKeys
		for _, k := range s.kems {
			set.Keys = append(set.Keys, k.pub)
		}
		return &set, nil
	})
	rpc.Handle(srv, client.PostLogin, func(_ context.Context, r *client.LoginRequest) (*client.Tokens, error) { return s.login(r.Body) })
	rpc.Handle(srv, client.PostReauth, func(_ context.Context, r *client.RefreshRequest) (*client.Tokens, error) {
		return s.reauth(r.Body.RefreshToken)
	})
	rpc.Handle(srv, client.PostLogout, func(_ context.Context, r *client.RefreshRequest) (*rpc.None, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d, ok := s.refresh[r.Body.RefreshToken]; ok {
			delete(s.refresh, r.Body.RefreshToken)
			s.end(d, "logout")
		}
		return nil, nil
	})
	rpc.Handle(srv, client.PostInitiate, func(ctx context.Context, r *client.InitiateRequest) (*client.Initiated, error) {
		return s.initiate(ctx.Value(deviceKey{}).(id.Device), r.Body.PublicKey)
	})
	rpc.Handle(srv, client.PostHeartbeat, func(ctx context.Context, _ *struct{}) (*client.Beat, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		d := ctx.Value(deviceKey{}).(id.Device)
		if _, ok := s.sessions[d]; !ok {
			return nil, fault.New(fault.Conflict, "the session is closed: %s", s.closedBy[d]).WithReason("session_closed").
				WithFields(fault.Field{Path: "session", Message: s.closedBy[d]})
		}
		return &client.Beat{State: "online", HeartbeatTTL: s.cfg.HeartbeatTTL}, nil
	})
	if s.cfg.LaneStates != nil {
		rpc.Handle(srv, client.GetLaneStates, func(context.Context, *struct{}) (*client.LaneStates, error) { return s.cfg.LaneStates, nil })
	}
	rpc.Handle(srv, client.PostClose, func(ctx context.Context, _ *struct{}) (*rpc.None, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.end(ctx.Value(deviceKey{}).(id.Device), "closed_by_user")
		return nil, nil
	})
}

func (s *Server) login(b client.Sealed) (*client.Tokens, error) {
	i := slices.IndexFunc(s.kems, func(k loginKey) bool { return k.pub.KID == b.KID })
	if i < 0 {
		return nil, fault.New(fault.Invalid, "no such login key").WithReason("unknown_key")
	}
	enc, err1 := base64.StdEncoding.DecodeString(b.Enc)
	text, err2 := base64.StdEncoding.DecodeString(b.Ciphertext)
	if err1 != nil || err2 != nil {
		return nil, fault.New(fault.Invalid, "not base64")
	}
	rcpt, err := hpke.NewRecipient(enc, s.kems[i].priv, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(client.LoginInfo))
	if err != nil {
		return nil, fault.New(fault.Invalid, "not sealed for us").WithReason("not_sealed_for_us")
	}
	plain, err := rcpt.Open(nil, text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "not sealed for us").WithReason("not_sealed_for_us")
	}
	var in client.Login
	if err := json.Unmarshal(plain, &in); err != nil {
		return nil, fault.New(fault.Invalid, "not a sign-in")
	}
	nonce, err := base64.StdEncoding.DecodeString(in.Nonce)
	if d := time.Since(in.IssuedAt); d.Abs() > client.LoginWindow {
		return nil, fault.New(fault.Unauthenticated, "the sign-in is %s old", d).WithReason("expired")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil || len(nonce) != 16 || s.nonces[in.Nonce]:
		return nil, fault.New(fault.Unauthenticated, "replayed").WithReason("replayed")
	case in.Login != s.cfg.Username || in.Password != s.cfg.Password:
		return nil, fault.New(fault.Unauthenticated, "user name or password is wrong").WithReason("bad_credentials")
	}
	s.nonces[in.Nonce] = true
	d := in.Device.ID
	if d == "" {
		d = id.NewDevice()
	} else if _, ok := s.devices[d]; !ok {
		return nil, fault.New(fault.NotFound, "no such device").WithReason("unknown_device")
	}
	s.devices[d] = in.Device
	return s.pair(d), nil
}

func (s *Server) reauth(token string) (*client.Tokens, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.spent[token]; ok {
		for t, dev := range s.refresh {
			if dev == d {
				delete(s.refresh, t)
			}
		}
		s.end(d, "token_reuse")
		return nil, fault.New(fault.Unauthenticated, "the refresh token was used before").WithReason("reuse_detected")
	}
	d, ok := s.refresh[token]
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "the refresh token is not accepted").WithReason("invalid_token")
	}
	delete(s.refresh, token)
	s.spent[token] = d
	return s.pair(d), nil
}

func (s *Server) pair(d id.Device) *client.Tokens {
	t := &client.Tokens{
		AccessToken: random(), TokenType: "Bearer", ExpiresIn: int(s.cfg.AccessTTL / time.Second),
		RefreshToken: random(), RefreshExpiresIn: 30 * 24 * 3600, DeviceID: d,
		User: client.TokenUser{ID: "usr_test", Username: s.cfg.Username, Email: s.cfg.Username + "@example.org"},
	}
	s.access[t.AccessToken] = d
	s.refresh[t.RefreshToken] = d
	return t
}

func (s *Server) initiate(d id.Device, key string) (*client.Initiated, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.sessions[d]; old != "" && old != key {
		s.end(d, "replaced")
	}
	if s.cfg.Opened != nil {
		if err := s.cfg.Opened(key); err != nil {
			return nil, err
		}
	}
	s.sessions[d] = key
	return &client.Initiated{
		SessionID: id.Session("ses_" + string(d)), Lanes: s.cfg.Lanes,
		HeartbeatTTL: s.cfg.HeartbeatTTL, HardTTL: 15 * 24 * 3600,
	}, nil
}

func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
