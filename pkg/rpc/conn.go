package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"vpnd/pkg/fault"
)

// What a client reads at most of one answer and of one event, in bytes.
const (
	maxAnswer = 64 << 20
	maxEvent  = 16 << 20 // a line of 1 MiB of control characters takes six
)

// Conn is a pool of connections to one server. It dials when it is used. It
// is safe for concurrent use.
type Conn struct {
	name     string // for errors: "auth", "vpn.example.org:4605"
	base     string
	unix     bool
	dial     func(context.Context) (net.Conn, error)
	patience time.Duration
	token    func() string
	shapes   sync.Map // reflect.Type of a request → its fields

	mu   sync.Mutex
	idle []*wire // longest unused first
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
	c := newConn(name, "http://"+name, "unix", path, o)
	c.unix = true
	return c
}

// handshakeTimeout bounds a TLS handshake.
const handshakeTimeout = 10 * time.Second

// DialTLS prepares calls to the HTTPS server at addr (host:port).
func DialTLS(addr string, cfg *tls.Config, o Options) *Conn {
	c := newConn(addr, "https://"+addr, "tcp", addr, o)
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg = cfg.Clone()
	if host, _, err := net.SplitHostPort(addr); err == nil && cfg.ServerName == "" {
		cfg.ServerName = host
	}
	dial := c.dial
	c.dial = func(ctx context.Context) (net.Conn, error) {
		raw, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		t := tls.Client(raw, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, unsent{err}
		}
		return t, nil
	}
	return c
}

func newConn(name, base, network, addr string, o Options) *Conn {
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}
	}
	return &Conn{name: name, base: base, dial: o.Dial, patience: o.Patience, token: o.Token}
}

// Call performs op. Errors are *fault.Error.
func (op Op[Req, Resp]) Call(ctx context.Context, c *Conn, req *Req) (*Resp, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, op.timeout())
		defer cancel()
	}
	if req == nil {
		req = new(Req)
	}
	var resp *Resp
	err := c.send(ctx, op.Info, req, func(res *http.Response) error {
		defer res.Body.Close()
		resp = new(Resp)
		if res.StatusCode == http.StatusNoContent {
			return nil
		}
		data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, resp); err != nil {
			return fault.Wrap(err, fault.Unavailable, "%s gave an answer that is not understood", c.name)
		}
		return nil
	})
	if _, none := any(resp).(*None); none && err == errDeletedBefore { //nolint:errorlint // as send gave it
		return new(Resp), nil
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// ErrEnded is in the error of a stream that came to its end, and not in that of
// one that broke.
var ErrEnded = errors.New("end of the stream")

// Follow performs a stream and calls fn for every event until ctx ends (nil),
// fn fails, or the stream ends (unavailable and ErrEnded: reconnect if you like).
func (op Stream[Req, Event]) Follow(ctx context.Context, c *Conn, req *Req, fn func(Event) error) error {
	if req == nil {
		req = new(Req)
	}
	// The time for an answer ends when the stream begins.
	begin, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(op.timeout(), func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	var body io.ReadCloser
	err := c.send(begin, op.Info, req, func(res *http.Response) error {
		late.Stop()
		body = res.Body
		return nil
	})
	if ctx.Err() != nil {
		err = nil
	}
	if err == nil && body != nil {
		defer body.Close()
		err = events(c.name, body, fn)
		if ctx.Err() != nil && errors.Is(err, fault.Unavailable) {
			err = nil
		}
	}
	return err
}

// events reads a stream to its end, which is always an error.
func events[Event any](name string, body io.Reader, fn func(Event) error) error {
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 4096), maxEvent)
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
				return fault.Wrap(err, fault.Unavailable, "the connection to %s broke", name)
			}
			return p.Error()
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fault.Wrap(err, fault.Unavailable, "%s sent an event that is not understood", name)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fault.Wrap(err, fault.Unavailable, "the connection to %s broke", name).WithRetryAfter(time.Second)
	}
	return fault.Wrap(ErrEnded, fault.Unavailable, "%s ended the stream", name).WithRetryAfter(time.Second)
}
