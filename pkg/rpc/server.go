package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
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

	// Refused is told of callers that had no right to an operation.
	Refused func(ctx context.Context, op Info, err error)

	// Around wraps every handler that was reached with valid input.
	Around func(ctx context.Context, op Info, req any, next func(context.Context) error) error

	// Ready is what heartbeats answer; nil means always ready.
	Ready func() error

	Log *slog.Logger

	// TLS serves HTTPS on listeners that are not Unix sockets.
	TLS *tls.Config

	// WriteTimeout bounds an answer, for servers without streams. Zero is no bound.
	WriteTimeout time.Duration

	// SendTimeout is how long one event of a stream may take to be taken by
	// its reader, who is disconnected then; 10 s by default.
	SendTimeout time.Duration

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
	ops  []Info

	draining   context.Context // ends when the drain begins
	beginDrain context.CancelFunc

	mu    sync.Mutex
	conns map[*answeringConn]struct{}
	empty chan struct{} // closed when conns is empty, once the server drains
}

// The bounds of a request. What a service needs longer for is its answer.
const (
	readTimeout = 10 * time.Second // for headers and body
	idleTimeout = 2 * time.Minute  // between two requests
	maxHeader   = 16 << 10         // bytes
)

// NewServer makes a Server that has no operations yet.
func NewServer(cfg ServerConfig) *Server {
	installProblems()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.SendTimeout == 0 {
		cfg.SendTimeout = 10 * time.Second
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), log: cfg.Log, conns: map[*answeringConn]struct{}{}}
	s.draining, s.beginDrain = context.WithCancel(context.Background())

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
	s.mux.HandleFunc("/", s.notRouted)
	s.http = &http.Server{
		Handler:        http.HandlerFunc(s.serveHTTP),
		ReadTimeout:    readTimeout,
		WriteTimeout:   cfg.WriteTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ConnContext:    s.connContext,
		ConnState:      s.connState,
		ErrorLog:       slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true, // OPTIONS * is no operation either
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

// Serve serves the listeners until ctx is canceled, then lets running calls
// end (at most five seconds) and returns. The listeners are closed, but a
// supervisor that owns the sockets keeps its own copies open.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		al := answeringListener{Listener: l}
		if _, ok := l.(*net.UnixListener); ok {
			al.ready = s.cfg.Ready
		} else if s.cfg.TLS != nil {
			al.tls = s.cfg.TLS.Clone()
			al.tls.NextProtos = []string{"http/1.1"} // no HTTP/2: less to attack
		}
		go func() { errs <- s.http.Serve(al) }()
	}
	var err error
	ended := 0
	select {
	case <-ctx.Done():
	case err = <-errs:
		ended = 1
	}
	s.beginDrain()
	for _, l := range listeners {
		_ = l.Close() // what it says, Serve says too
	}
	for ; ended < len(listeners); ended++ {
		if e := <-errs; err == nil {
			err = e
		}
	}
	s.drain()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
