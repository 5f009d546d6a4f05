package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"vpnd/pkg/fault"
)

// Handle serves op with h. Everything about the input that its type declares
// has been checked when h runs, and so has the caller's access.
func Handle[Req, Resp any](s *Server, op Op[Req, Resp], h func(context.Context, *Req) (*Resp, error)) {
	call := func(ctx context.Context, req *Req) (resp *Resp, err error) {
		if s.cfg.Around == nil {
			return h(ctx, req)
		}
		err = s.cfg.Around(ctx, op.Info, req, func(ctx context.Context) error {
			resp, err = h(ctx, req)
			return err
		})
		return resp, err
	}
	none := reflect.TypeFor[Resp]() == reflect.TypeFor[None]()
	status, answer := http.StatusNoContent, &huma.Response{}
	if !none {
		status, answer = http.StatusOK, &huma.Response{Content: map[string]*huma.MediaType{"application/json": {
			Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Resp](), true, op.ID+"Response"),
		}}}
	}
	register(s, op.Info, status, answer, func(ctx context.Context, w http.ResponseWriter, req *Req) {
		resp, err := call(ctx, req)
		switch {
		case err != nil:
			writeProblem(w, s.report(ctx, op.Info, err))
		case none:
			w.WriteHeader(http.StatusNoContent)
		default:
			s.answer(ctx, w, op.Info, resp)
		}
	})
}

// answer sends what a handler gave. It is encoded first, so that what cannot
// be encoded becomes an error and not half an answer.
func (s *Server) answer(ctx context.Context, w http.ResponseWriter, op Info, resp any) {
	if l, ok := resp.(interface{ complete() }); ok {
		l.complete()
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(resp); err != nil {
		writeProblem(w, s.report(ctx, op, fmt.Errorf("encode answer: %w", err)))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	_, _ = w.Write(body.Bytes()) // the caller may be gone
}

// HandleStream serves a stream. h calls send for every event until it returns,
// send fails, or ctx ends, which it does when the caller goes away or the
// server drains. A send that takes longer than SendTimeout disconnects.
func HandleStream[Req, Event any](s *Server, op Stream[Req, Event], h func(ctx context.Context, req *Req, send func(Event) error) error) {
	answer := &huma.Response{
		Description: "server-sent events; each data line is one JSON object",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Event](), true, op.ID),
		}},
	}
	register(s, op.Info, http.StatusOK, answer, func(ctx context.Context, w http.ResponseWriter, req *Req) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.draining, cancel)()
		rc := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		// The deadlines of this connection are the stream's: nothing follows it.
		w.Header().Set("Connection", "close")
		push := func(format string, data []byte) error {
			_ = rc.SetWriteDeadline(time.Now().Add(s.cfg.SendTimeout))
			if _, err := fmt.Fprintf(w, format, data); err != nil {
				return err
			}
			return rc.Flush()
		}
		if push(": ok%s\n\n", nil) != nil {
			return
		}
		err := h(ctx, req, func(e Event) error {
			data, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return push("data: %s\n\n", data)
		})
		if err != nil && ctx.Err() == nil {
			data, _ := json.Marshal(s.report(ctx, op.Info, err).Problem) // a Problem always encodes
			_ = push("event: error\ndata: %s\n\n", data)
		}
	})
}

// register hands an operation to huma, which checks the input by its type and
// describes it all in OpenAPI. What is answered is ours.
func register[Req any](s *Server, info Info, status int, answer *huma.Response, serve func(context.Context, http.ResponseWriter, *Req)) {
	s.ops = append(s.ops, info)
	in := inputOf(reflect.TypeFor[Req](), info)
	huma.Register(s.api, huma.Operation{
		OperationID: info.ID,
		Method:      info.Method,
		Path:        info.Path,
		Summary:     info.Summary,
		Description: "Access: " + string(info.Access) + ".",
		Middlewares: huma.Middlewares{s.guard(info, in)},
		// What follows describes the answer, which is sent here.
		DefaultStatus: status,
		Responses:     map[string]*huma.Response{strconv.Itoa(status): answer},
		// The body has been read when huma sees it.
		MaxBodyBytes:    info.bodyLimit() + 1,
		BodyReadTimeout: -1,
	}, func(ctx context.Context, req *Req) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			_, w := humago.Unwrap(hctx)
			serve(ctx, w, req)
		}}, nil
	})
}

// Forward serves op by calling it on conn: how control offers the operations
// of the services behind it.
func Forward[Req, Resp any](s *Server, op Op[Req, Resp], conn *Conn) {
	Handle(s, op, func(ctx context.Context, req *Req) (*Resp, error) { return op.Call(ctx, conn, req) })
}

// report classifies err for the caller and logs what the caller may not see.
func (s *Server) report(ctx context.Context, op Info, err error) *problem {
	p := toProblem(ctx, err)
	if p.Code == fault.Internal {
		s.log.ErrorContext(ctx, "operation failed", "op", op.ID, "err", err.Error(), "request_id", p.RequestID)
	}
	return p
}

// guard refuses callers before any input is read, then reads it.
func (s *Server) guard(info Info, in input) func(huma.Context, func(huma.Context)) {
	return func(hctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(hctx)
		ctx := r.Context()
		if r.Method != info.Method { // ServeMux lets HEAD in where GET is
			s.notRouted(w, r)
			return
		}
		err := admit(CallerFrom(ctx), info)
		if err == nil && s.cfg.Guard != nil {
			ctx, err = s.cfg.Guard(ctx, info, guardRequest{r})
		}
		if err != nil && s.cfg.Refused != nil {
			s.cfg.Refused(r.Context(), info, err)
		}
		if err == nil {
			err = in.read(w, r)
		}
		if err == nil && s.draining.Err() == nil {
			w.Header().Del("Connection") // see serveHTTP
		}
		if err != nil {
			writeProblem(w, s.report(r.Context(), info, err))
			return
		}
		next(huma.WithContext(hctx, ctx))
	}
}

// admit applies what the operation itself declares. A sibling is known by name
// and asks for no level; everyone else needs the level.
func admit(c Caller, info Info) error {
	if c.Local && c.Access == Internal {
		if len(info.From) > 0 && !slices.Contains(info.From, c.Name) {
			return fault.New(fault.Denied, "%s may not call %s", c.Name, info.ID)
		}
		return nil
	}
	switch info.Access {
	case Public, Bearer: // a Bearer's token is the Guard's to check
		return nil
	case View, Admin:
		if info.Access.Allows(c.Access) {
			return nil
		}
		return fault.New(fault.Denied, "%s needs %s access", info.ID, info.Access).
			WithHint("run as root or as a member of the group that has %s access", info.Access)
	}
	return fault.New(fault.Denied, "%s is not offered here", info.ID)
}

type guardRequest struct{ r *http.Request }

func (g guardRequest) Header(name string) string { return g.r.Header.Get(name) }
func (g guardRequest) RemoteAddr() string        { return g.r.RemoteAddr }
