package rpc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"

	"vpnd/pkg/fault"
)

// identity is whom a connection belongs to: asked once, when it is made.
type identity struct {
	caller Caller
	err    error
}

type identityKey struct{}

func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	id := &identity{}
	u, ok := unixConn(c)
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
	id, ok := ctx.Value(identityKey{}).(*identity)
	if !ok { // served by a test's own http.Server
		id = &identity{caller: Caller{Access: Public, Remote: r.RemoteAddr}}
	}
	reqID := ""
	if id.caller.Local {
		reqID = cleanRequestID(r.Header.Get("X-Request-Id"))
	}
	if reqID == "" {
		reqID = NewRequestID()
	}
	w.Header().Set("X-Request-Id", reqID)
	if r.ContentLength != 0 || s.draining.Err() != nil {
		// Until the body has been read: an answer that comes before does not
		// wait for it, and where the next request begins is not known then.
		w.Header().Set("Connection", "close")
	}
	ctx = WithCaller(WithRequestID(ctx, reqID), id.caller)
	if id.err != nil {
		writeProblem(w, toProblem(ctx, id.err))
		return
	}
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			s.log.Error("handler panicked", "path", r.URL.Path, "panic", p, "request_id", reqID)
			writeProblem(w, toProblem(ctx, errors.New("panic")))
		}
	}()
	r = r.WithContext(ctx)
	// There is one form of every answer. huma would look for others here.
	delete(r.Header, "Accept")
	if !routable(r) {
		writeProblem(w, toProblem(ctx, noOperation(r)))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// routable tells whether ServeMux would look for a handler. It answers by
// itself where the path is "*", and redirects to the clean path where it is
// another. Nobody calls us by another.
func routable(r *http.Request) bool {
	p := r.URL.EscapedPath()
	if r.RequestURI == "*" || !strings.HasPrefix(p, "/") {
		return false
	}
	return !strings.Contains(p, "/.") && !strings.Contains(p, "//") || path.Clean(p) == p
}

func noOperation(r *http.Request) error {
	return fault.New(fault.NotFound, "no operation at %s %s", r.Method, r.URL.Path)
}

// notRouted is where requests go that no operation takes. It tells an unknown
// path from a known path with another method.
func (s *Server) notRouted(w http.ResponseWriter, r *http.Request) {
	var allow []string
	probe := *r
	for _, op := range s.ops {
		probe.Method = op.Method
		if _, pattern := s.mux.Handler(&probe); pattern == op.Method+" "+op.Path && !slices.Contains(allow, op.Method) {
			allow = append(allow, op.Method)
		}
	}
	err := noOperation(r)
	if len(allow) > 0 {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		err = withStatus{fault.New(fault.Invalid, "%s does not take %s", r.URL.Path, r.Method).
			WithHint("use %s", strings.Join(allow, " or ")), http.StatusMethodNotAllowed}
	}
	writeProblem(w, toProblem(r.Context(), err))
}
