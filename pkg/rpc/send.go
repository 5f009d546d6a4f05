package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"syscall"
	"time"

	"vpnd/pkg/fault"
)

// send tries until the server answers, and turns refusals into faults. read
// takes an answer that is a success, closes its body, and may see several when
// the call is repeatable. DESIGN.md says what is tried again, and why that is
// never done twice.
func (c *Conn) send(ctx context.Context, info Info, req any, read func(*http.Response) error) error {
	hr, err := c.encode(info, req)
	if err != nil {
		return fault.From(err)
	}
	id := RequestID(ctx)
	if id == "" {
		id = NewRequestID()
	}
	hr.Header.Set("X-Request-Id", id)
	hr = hr.WithContext(ctx)

	perhapsDone := false // by an attempt whose answer was lost
	giveUp := time.Now().Add(c.patience)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := c.attempt(hr, read)
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[*fault.Error](err); ok && ctx.Err() == nil {
			if perhapsDone && info.Method == http.MethodDelete && f.Code == fault.NotFound {
				return errDeletedBefore
			}
			return f
		}
		again := neverDone(err)
		if !again && info.repeatable() && worthAnother(err) {
			again, perhapsDone = true, true
		}
		again = again && ctx.Err() == nil
		if !again || time.Now().Add(wait).After(giveUp) {
			return c.broken(ctx, err)
		}
		select {
		case <-ctx.Done():
			return c.broken(ctx, err)
		case <-time.After(wait):
		}
	}
}

// errDeletedBefore is the answer to a deletion that was repeated because the
// first answer was lost: what was to go is gone.
var errDeletedBefore = fault.New(fault.NotFound, "it is not there; an attempt of this call whose answer was lost may have deleted it")

// attempt sends the request once.
func (c *Conn) attempt(hr *http.Request, read func(*http.Response) error) error {
	if c.token != nil {
		if t := c.token(); t != "" {
			hr.Header.Set("Authorization", "Bearer "+t)
		}
	}
	res, err := c.roundTrip(hr)
	if err != nil {
		return err
	}
	if res.StatusCode < 300 {
		return read(res)
	}
	defer res.Body.Close()
	return c.refused(res)
}

// neverDone tells whether the request certainly reached no handler: it was not
// received, or the owner of the socket has just died (ECONNREFUSED), or its
// queue is full (EAGAIN). A missing socket (ENOENT) is a server that does not
// run: waiting would only hide that.
func neverDone(err error) bool {
	if _, ok := errors.AsType[unsent](err); ok {
		return worthAnother(err)
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// worthAnother tells whether a connection was there and ended.
func worthAnother(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// broken is the fault of a call without an answer.
func (c *Conn) broken(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return fault.Wrap(err, fault.Timeout, "%s did not answer in time", c.name)
	case cause != nil:
		return fault.Wrap(err, fault.Canceled, "the call to %s was canceled", c.name)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fault.Wrap(err, fault.Denied, "%s does not prove who it is", c.name)
	}
	return fault.Wrap(err, fault.Unavailable, "%s is not reachable", c.name).WithRetryAfter(time.Second)
}

// refused reads the problem of an answer that is no success.
func (c *Conn) refused(res *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, MaxBody)) // what was read may be enough
	var p fault.Problem
	ct, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if ct != fault.ContentType || json.Unmarshal(data, &p) != nil || p.Status == 0 {
		return fault.New(fault.FromHTTP(res.StatusCode), "%s answered %s", c.name, res.Status)
	}
	return p.Error()
}
