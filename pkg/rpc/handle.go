package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"vpnd/pkg/fault"
)

// Handle serves op with h. Everything about the input that its type declares
// has been checked when h runs, and so has the caller's access.
func Handle[Req, Resp any](s *Server, op Op[Req, Resp], h func(context.Context, *Req) (*Resp, error)) {
	run := func(ctx context.Context, req *Req) (resp *Resp, err error) {
		if s.cfg.Around == nil {
			resp, err = h(ctx, req)
		} else {
			err = s.cfg.Around(ctx, op.Info, req, func(ctx context.Context) error {
				resp, err = h(ctx, req)
				return err
			})
		}
		if err != nil {
			return nil, s.report(ctx, op.Info, err)
		}
		return resp, nil
	}
	ho := s.operation(op.Info)
	if reflect.TypeFor[Resp]() == reflect.TypeFor[None]() {
		ho.DefaultStatus = http.StatusNoContent
		huma.Register(s.api, ho, func(ctx context.Context, req *Req) (*struct{}, error) {
			_, err := run(ctx, req)
			return nil, err
		})
		return
	}
	type output struct{ Body *Resp }
	huma.Register(s.api, ho, func(ctx context.Context, req *Req) (*output, error) {
		resp, err := run(ctx, req)
		if err != nil {
			return nil, err
		}
		return &output{resp}, nil
	})
}

// HandleStream serves a stream. h calls send for every event until it returns,
// send fails, or ctx ends, which it does when the caller goes away or the
// server drains. A send that takes longer than ten seconds disconnects.
func HandleStream[Req, Event any](s *Server, op Stream[Req, Event], h func(ctx context.Context, req *Req, send func(Event) error) error) {
	ho := s.operation(op.Info)
	ho.Responses = map[string]*huma.Response{"200": {
		Description: "server-sent events; each data line is one JSON object",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Event](), true, op.ID),
		}},
	}}
	huma.Register(s.api, ho, func(ctx context.Context, req *Req) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-s.drain:
					cancel()
				case <-ctx.Done():
				}
			}()
			hctx.SetHeader("Content-Type", "text/event-stream")
			hctx.SetHeader("Cache-Control", "no-store")
			w := hctx.BodyWriter()
			rc := http.NewResponseController(w.(http.ResponseWriter))
			_ = rc.SetReadDeadline(time.Time{}) // the request is read; the stream may last
			_, _ = fmt.Fprint(w, ": ok\n\n")
			_ = rc.Flush()
			err := h(ctx, req, func(e Event) error {
				data, err := json.Marshal(e)
				if err != nil {
					return err
				}
				_ = rc.SetWriteDeadline(time.Now().Add(10 * time.Second))
				if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
					return err
				}
				return rc.Flush()
			})
			if err != nil && ctx.Err() == nil {
				p := s.report(ctx, op.Info, err)
				data, _ := json.Marshal(p.Problem) // a Problem always encodes
				_, _ = fmt.Fprintf(w, "event: error\ndata: %s\n\n", data)
				_ = rc.Flush()
			}
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

func (s *Server) operation(info Info) huma.Operation {
	s.ops = append(s.ops, info)
	return huma.Operation{
		OperationID:  info.ID,
		Method:       info.Method,
		Path:         info.Path,
		Summary:      info.Summary,
		Description:  "Access: " + string(info.Access) + ".",
		MaxBodyBytes: info.bodyLimit(),
		Middlewares:  huma.Middlewares{s.guard(info)},
	}
}

// guard refuses callers before any input is read.
func (s *Server) guard(info Info) func(huma.Context, func(huma.Context)) {
	return func(hctx huma.Context, next func(huma.Context)) {
		ctx := hctx.Context()
		err := admit(CallerFrom(ctx), info)
		if err == nil && s.cfg.Guard != nil {
			ctx, err = s.cfg.Guard(ctx, info, guardRequest{hctx})
		}
		if err != nil {
			p := s.report(hctx.Context(), info, err)
			for k, v := range p.GetHeaders() {
				hctx.SetHeader(k, v[0])
			}
			hctx.SetHeader("Content-Type", fault.ContentType)
			hctx.SetStatus(p.Status)
			_ = json.NewEncoder(hctx.BodyWriter()).Encode(p.Problem) // the connection may be gone
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

type guardRequest struct{ ctx huma.Context }

func (r guardRequest) Header(name string) string { return r.ctx.Header(name) }
func (r guardRequest) RemoteAddr() string        { return r.ctx.RemoteAddr() }
