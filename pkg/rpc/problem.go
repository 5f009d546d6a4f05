package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
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

// writeProblem sends p. A Problem always encodes, and the caller may be gone.
func writeProblem(w http.ResponseWriter, p *problem) {
	h := w.Header()
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	h.Set("Content-Type", fault.ContentType)
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(p.Problem)
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body.Bytes())
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
	if ws, ok := errors.AsType[withStatus](err); ok {
		p.Status, p.Title = ws.status, statusText(ws.status)
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

// withStatus is an error with another status than its code has.
type withStatus struct {
	fault  *fault.Error
	status int
}

func (e withStatus) Error() string { return e.fault.Error() }
func (e withStatus) Unwrap() error { return e.fault }

// maxFields bounds how many problems with one request are told.
const maxFields = 20

// humaProblem turns what huma itself finds wrong with a request into ours.
func humaProblem(hctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
	ctx := context.Background()
	if hctx != nil {
		ctx = hctx.Context()
	}
	f := fault.New(fault.FromHTTP(status), "%s", msg)
	for _, err := range errs {
		if d, ok := err.(huma.ErrorDetailer); ok {
			f = f.WithFields(field(d.ErrorDetail()))
		} else if err != nil {
			f = f.WithFields(fault.Field{Path: "body", Message: err.Error()})
		}
	}
	if len(f.Fields) > 0 {
		slices.SortStableFunc(f.Fields, func(a, b fault.Field) int { return strings.Compare(a.Path, b.Path) })
		f.Fields = f.Fields[:min(len(f.Fields), maxFields)]
		parts := make([]string, len(f.Fields))
		for i, fd := range f.Fields {
			parts[i] = fd.Path + ": " + fd.Message
		}
		f.Message = strings.Join(parts, "; ")
	}
	return toProblem(ctx, withStatus{f, status})
}

func field(d *huma.ErrorDetail) fault.Field {
	if fl, ok := parseFlaw(d.Message); ok {
		return fault.Field{Path: fl.path, Message: fl.message}
	}
	return fault.Field{Path: fieldPath(d), Message: d.Message}
}

// fieldPath completes huma's location, which names the parent of a missing or
// unexpected property, with the property itself.
func fieldPath(d *huma.ErrorDetail) string {
	if rest, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		if name, _, ok := strings.Cut(rest, " "); ok {
			return d.Location + "." + name
		}
	}
	return d.Location
}

// installProblems sets what huma has for the whole process: its error
// constructors, and that {"Name": …} is not {"name": …}. encoding/json takes
// both for the same field, so the second would pass unchecked beside the first.
var installProblems = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.NewErrorWithContext = humaProblem
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(nil, status, msg, errs...)
	}
})
