package rpc

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"vpnd/pkg/fault"
)

// problem makes a fault.Problem an answer that huma knows how to send.
type problem struct{ fault.Problem }

func (p *problem) Error() string               { return p.Detail }
func (p *problem) GetStatus() int              { return p.Status }
func (p *problem) ContentType(_ string) string { return fault.ContentType }

func (p *problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return h
}

// toProblem is what the caller may know of err. The text of internal errors
// is withheld: the log has it under the same request id.
func toProblem(ctx context.Context, err error) *problem {
	f := fault.From(err)
	status := f.Code.HTTPStatus()
	p := &problem{fault.Problem{
		Title: statusText(status), Status: status, Code: f.Code, Reason: f.Reason, Detail: f.Message,
		Hint: f.Hint, RetryAfter: fault.RetrySeconds(f.RetryAfter), Errors: f.Fields, RequestID: RequestID(ctx),
	}}
	if f.Code == fault.Internal {
		p.Detail = "internal error"
		p.Hint = "the log tells more under request id " + p.RequestID
		p.Errors = nil
	}
	if (f.Code == fault.Unavailable || f.Code == fault.Throttled) && p.RetryAfter == 0 {
		p.RetryAfter = 1
	}
	return p
}

func statusText(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Client Closed Request" // 499, nginx's word for it
}

// humaProblem turns what huma itself finds wrong with a request into ours.
func humaProblem(hctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
	ctx := context.Background()
	if hctx != nil {
		ctx = hctx.Context()
	}
	if status >= 500 {
		return toProblem(ctx, fault.New(fault.Internal, "%s", msg))
	}
	f := fault.New(fault.FromHTTP(status), "%s", msg)
	for _, err := range errs {
		if d, ok := err.(huma.ErrorDetailer); ok {
			f = f.WithFields(field(d.ErrorDetail()))
		} else if err != nil {
			f = f.WithFields(fault.Field{Path: "body", Message: plainDecodeError(err)})
		}
	}
	if len(f.Fields) > 0 {
		parts := make([]string, len(f.Fields))
		for i, fd := range f.Fields {
			parts[i] = fd.Path + ": " + fd.Message
		}
		f.Message = strings.Join(parts, "; ")
	}
	p := toProblem(ctx, f)
	p.Status, p.Title = status, statusText(status)
	return p
}

func field(d *huma.ErrorDetail) fault.Field {
	if path, ok := strings.CutPrefix(d.Message, badUTF8); ok {
		return fault.Field{Path: path, Message: "is not valid UTF-8"}
	}
	return fault.Field{Path: fieldPath(d), Message: d.Message}
}

// fieldPath completes huma's location, which names the parent of a missing or
// unexpected property, with the property itself.
func fieldPath(d *huma.ErrorDetail) string {
	if rest, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		if name, _, ok := strings.Cut(rest, " "); ok && !strings.HasSuffix(d.Location, "."+name) {
			return d.Location + "." + name
		}
	}
	return d.Location
}

func plainDecodeError(err error) string {
	return fmt.Sprintf("is not valid JSON (%v)", err)
}

// installProblems points huma's process-wide error constructors at ours.
var installProblems = sync.OnceFunc(func() {
	huma.NewErrorWithContext = humaProblem
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(nil, status, msg, errs...)
	}
})
