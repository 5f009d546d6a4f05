package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"vpnd/pkg/fault"
)

// maxAnswer bounds what a client reads of one answer, in bytes.
const maxAnswer = 64 << 20

// Conn is a pool of connections to one server. It dials when it is used. It
// is safe for concurrent use.
type Conn struct {
	name     string // for errors: "auth", "vpn.example.org:4605"
	base     string
	client   *http.Client
	patience time.Duration
	token    func() string
}

// Options tune a Conn. The zero value suits a sibling service.
type Options struct {
	// Patience is for how long a call that never reached the server, or a
	// repeatable one whose connection broke, is tried again. Zero is 5 s,
	// negative is never.
	Patience time.Duration

	// Token gives the bearer token of each call; nil for none.
	Token func() string

	// Dial replaces the dialer.
	Dial func(ctx context.Context) (net.Conn, error)
}

// DialUnix prepares calls to the server on a Unix socket. name is for errors.
func DialUnix(name, path string, o Options) *Conn {
	if o.Dial == nil {
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	return newConn(name, "http://"+name, nil, o)
}

// DialTLS prepares calls to the HTTPS server at addr (host:port).
func DialTLS(addr string, cfg *tls.Config, o Options) *Conn {
	if o.Dial == nil {
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	return newConn(addr, "https://"+addr, cfg, o)
}

func newConn(name, base string, cfg *tls.Config, o Options) *Conn {
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	return &Conn{name: name, base: base, patience: o.Patience, token: o.Token, client: &http.Client{
		Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Dial(ctx) },
			TLSClientConfig:     cfg,
			TLSHandshakeTimeout: 10 * time.Second,
			DisableCompression:  true,
			MaxIdleConns:        64,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// CloseIdle drops pooled connections, for callers whose network changed.
func (c *Conn) CloseIdle() { c.client.CloseIdleConnections() }

// Call performs op. Errors are *fault.Error.
func (op Op[Req, Resp]) Call(ctx context.Context, c *Conn, req *Req) (*Resp, error) {
	if _, ok := ctx.Deadline(); !ok {
		t := op.Timeout
		if t == 0 {
			t = DefaultTimeout
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	if req == nil {
		req = new(Req)
	}
	res, err := c.send(ctx, op.Info, req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	resp := new(Resp)
	if res.StatusCode == http.StatusNoContent {
		return resp, nil
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if err := json.Unmarshal(data, resp); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "%s gave an answer that is not understood", c.name)
	}
	return resp, nil
}

// Follow performs a stream and calls fn for every event until ctx ends (nil),
// fn fails, or the stream ends (unavailable: reconnect if you like).
func (op Stream[Req, Event]) Follow(ctx context.Context, c *Conn, req *Req, fn func(Event) error) error {
	if req == nil {
		req = new(Req)
	}
	res, err := c.send(ctx, op.Info, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(make([]byte, 4096), 4<<20)
	failed := false
	for sc.Scan() {
		line := sc.Bytes()
		if bytes.HasPrefix(line, []byte("event: error")) {
			failed = true
			continue
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		if failed {
			var p fault.Problem
			if err := json.Unmarshal(data, &p); err != nil {
				return fault.Wrap(err, fault.Unavailable, "%s ended the stream", c.name)
			}
			return p.Error()
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fault.Wrap(err, fault.Unavailable, "%s sent an event that is not understood", c.name)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fault.New(fault.Unavailable, "%s ended the stream", c.name).WithRetryAfter(time.Second)
}

// send tries until the server answers, and turns refusals into faults.
func (c *Conn) send(ctx context.Context, info Info, req any) (*http.Response, error) {
	giveUp := time.Now().Add(c.patience)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		hr, err := encode(info, c.base, req)
		if err != nil {
			return nil, fault.From(err)
		}
		c.mark(ctx, hr)
		res, err := c.client.Do(hr.WithContext(ctx))
		if err == nil {
			if res.StatusCode < 300 {
				return res, nil
			}
			defer res.Body.Close()
			return nil, c.refused(res)
		}
		again := neverSent(err) || (info.repeatable() && ctx.Err() == nil)
		if !again || time.Now().Add(wait).After(giveUp) {
			return nil, c.broken(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil, c.broken(ctx, err)
		case <-time.After(wait):
		}
	}
}

func (c *Conn) mark(ctx context.Context, hr *http.Request) {
	id := RequestID(ctx)
	if id == "" {
		id = NewRequestID()
	}
	hr.Header.Set("X-Request-Id", id)
	if c.token != nil {
		if t := c.token(); t != "" {
			hr.Header.Set("Authorization", "Bearer "+t)
		}
	}
}

// neverSent tells whether the request certainly did not reach a handler.
// ECONNREFUSED is a socket whose owner has just died. A missing socket
// (ENOENT) is a server that does not run: waiting would only hide that.
func neverSent(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

func (c *Conn) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		f := fault.From(ctx.Err())
		return fault.Wrap(err, f.Code, "%s did not answer in time", c.name)
	}
	var tlsErr *tls.CertificateVerificationError
	if errors.As(err, &tlsErr) {
		return fault.Wrap(err, fault.Denied, "%s does not prove who it is", c.name)
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	return fault.Wrap(err, fault.Unavailable, "%s is not reachable", c.name).WithRetryAfter(time.Second)
}

// refused reads the problem of an answer that is no success.
func (c *Conn) refused(res *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, MaxBody)) // what was read may be enough
	var p fault.Problem
	ct, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if ct != fault.ContentType || json.Unmarshal(data, &p) != nil || p.Status == 0 {
		return fault.New(fault.FromHTTP(res.StatusCode), "%s answered %s", c.name, strings.TrimSpace(fmt.Sprint(res.Status)))
	}
	return p.Error()
}
