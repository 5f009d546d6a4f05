package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"vpnd/pkg/fault"
)

// MaxBody is the largest request body that is read, in bytes.
const MaxBody = 64 << 10

// Request is what a Guard may look at: no body has been read yet.
type Request interface {
	Header(name string) string
	RemoteAddr() string
}

// ServerConfig says how a Server treats its callers. Only Name is required.
type ServerConfig struct {
	Name    string
	Version string

	// Identify admits the peer of a Unix socket connection. Nil refuses all.
	Identify func(PeerCred) (Caller, error)

	// Guard runs before an operation's input is read. It may refuse, and may
	// put more into the context. The caller is in the context already.
	Guard func(context.Context, Info, Request) (context.Context, error)

	// Around wraps every handler that was reached with valid input.
	Around func(ctx context.Context, op Info, req any, next func(context.Context) error) error

	// Ready is what heartbeats answer; nil means always ready.
	Ready func() error

	Log *slog.Logger

	// TLS serves HTTPS on listeners that are not Unix sockets.
	TLS *tls.Config

	// WriteTimeout bounds an answer, for servers without streams. Zero is no bound.
	WriteTimeout time.Duration

	// ConnState sees connections come and go, for those who limit them.
	ConnState func(net.Conn, http.ConnState)
}

// Server serves operations. Register them with Handle and HandleStream, then
// call Serve.
type Server struct {
	cfg  ServerConfig
	mux  *http.ServeMux
	api  huma.API
	http *http.Server
	log  *slog.Logger

	ops   []Info
	drain chan struct{} // closed when streams should end
	once  sync.Once
}

// NewServer makes a Server that has no operations yet.
func NewServer(cfg ServerConfig) *Server {
	installProblems()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), log: cfg.Log, drain: make(chan struct{})}

	hc := huma.DefaultConfig(cfg.Name, cfg.Version)
	hc.CreateHooks = nil // the default hook adds $schema links to every body
	hc.DocsPath, hc.SchemasPath, hc.OpenAPIPath = "", "", ""
	hc.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	hc.RejectUnknownQueryParameters = true
	hc.Formats = map[string]huma.Format{
		"application/json": {Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: strictUnmarshal},
		"json":             {Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: strictUnmarshal},
	}
	s.api = humago.New(s.mux, hc)
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      cfg.WriteTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       s.connContext,
		ConnState:         cfg.ConnState,
		TLSConfig:         cfg.TLS,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only: less to attack
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Operations lists what was registered, in order.
func (s *Server) Operations() []Info { return s.ops }

// OpenAPI prints the OpenAPI 3.1 description of what was registered.
func (s *Server) OpenAPI() ([]byte, error) { return json.Marshal(s.api.OpenAPI()) }

// HandleHTTP serves a path outside the operations, such as /openapi.json.
func (s *Server) HandleHTTP(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Handler serves requests without a listener of ours, for tests.
func (s *Server) Handler() http.Handler { return s.http.Handler }

type identity struct {
	caller Caller
	err    error
}

type identityKey struct{}

func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	id := &identity{}
	inner := c
	if t, ok := inner.(*tls.Conn); ok {
		inner = t.NetConn()
	}
	if p, ok := inner.(*pingConn); ok {
		inner = p.Conn
	}
	u, ok := inner.(*net.UnixConn)
	if !ok {
		id.caller = Caller{Access: Public, Remote: c.RemoteAddr().String()}
		return context.WithValue(ctx, identityKey{}, id)
	}
	cred, err := peerCred(u)
	switch {
	case err != nil:
		id.err = fault.Wrap(err, fault.Denied, "cannot tell who is calling")
	case s.cfg.Identify == nil:
		id.err = fault.New(fault.Denied, "%s admits nobody on this socket", s.cfg.Name)
	default:
		id.caller, id.err = s.cfg.Identify(cred)
		id.caller.Local, id.caller.UID, id.caller.PID = true, cred.UID, cred.PID
	}
	return context.WithValue(ctx, identityKey{}, id)
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	reqID := cleanRequestID(r.Header.Get("X-Request-Id"))
	id, ok := ctx.Value(identityKey{}).(*identity)
	if !ok { // served by a test's own http.Server
		id = &identity{caller: Caller{Access: Public, Remote: r.RemoteAddr}}
	}
	if reqID == "" || !id.caller.Local {
		reqID = NewRequestID()
	}
	w.Header().Set("X-Request-Id", reqID)
	ctx = WithCaller(WithRequestID(ctx, reqID), id.caller)
	if id.err != nil {
		writeProblem(w, toProblem(ctx, id.err))
		return
	}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a sentinel panic value
			s.log.Error("handler panicked", "path", r.URL.Path, "panic", p, "request_id", reqID)
			writeProblem(w, toProblem(ctx, fault.New(fault.Internal, "panic")))
		}
	}()
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.notRouted(w, r.WithContext(ctx))
		return
	}
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

// notRouted tells an unknown path from a known path with another method.
func (s *Server) notRouted(w http.ResponseWriter, r *http.Request) {
	rec := &statusOnly{header: http.Header{}}
	s.mux.ServeHTTP(rec, r)
	if rec.status == http.StatusMethodNotAllowed {
		allow := rec.header.Get("Allow")
		p := toProblem(r.Context(), fault.New(fault.Invalid, "%s does not take %s", r.URL.Path, r.Method).WithHint("use %s", allow))
		p.Status, p.Title = rec.status, statusText(rec.status)
		w.Header().Set("Allow", allow)
		writeProblem(w, p)
		return
	}
	writeProblem(w, toProblem(r.Context(), fault.New(fault.NotFound, "no operation at %s %s", r.Method, r.URL.Path)))
}

type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }

func writeProblem(w http.ResponseWriter, p *problem) {
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", fault.ContentType)
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(p.Problem) // a Problem always encodes
	w.WriteHeader(p.Status)
	_, _ = io.Copy(w, &body)
}

// Serve serves the listeners until ctx is canceled, then lets running calls
// end (at most five seconds) and returns. The listeners are closed, but a
// supervisor that owns the sockets keeps its own copies open.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if _, ok := l.(*net.UnixListener); ok {
				errs <- s.http.Serve(pingListener{l, s.cfg.Ready})
				return
			}
			if s.cfg.TLS != nil {
				errs <- s.http.ServeTLS(l, "", "")
				return
			}
			errs <- s.http.Serve(l)
		}()
	}
	var err error
	ended := 0
	select {
	case <-ctx.Done():
	case err = <-errs:
		ended = 1
	}
	s.once.Do(func() { close(s.drain) })
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if s.http.Shutdown(grace) != nil {
		_ = s.http.Close()
	}
	for ; ended < len(listeners); ended++ {
		if e := <-errs; err == nil {
			err = e
		}
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
