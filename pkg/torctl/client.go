package torctl

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/cretz/bine/control"

	"vpnd/pkg/fault"
)

// Client is an authenticated pair of connections to one tor. Make it with
// Dial, end it with Close.
type Client struct {
	cmd   *wire
	turn  chan struct{} // the lock of cmd; a channel so that waiting obeys a context
	ev    *wire
	hub   hub
	ended chan struct{} // the reader of ev has returned

	once sync.Once
	done chan struct{}
	err  error // written before done is closed
}

// Dial connects to the control socket of a running tor and authenticates. It
// gives Unavailable when tor is not there or refuses, and Timeout after
// DefaultTimeout or at ctx's end. ctx does not bound the client's life.
func Dial(ctx context.Context, socketPath string) (*Client, error) {
	cmd, err := dialWire(ctx, socketPath)
	if err != nil {
		return nil, err
	}
	ev, err := dialWire(ctx, socketPath)
	if err != nil {
		cmd.lim.Close()
		return nil, err
	}
	_ = ev.lim.SetDeadline(never)
	c := &Client{cmd: cmd, ev: ev, turn: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{})}
	c.hub.init()
	go c.readEvents()
	return c, nil
}

// Close ends both connections and every event channel. It may be called more
// than once.
func (c *Client) Close() error {
	c.fail(errors.New("closed"))
	<-c.ended
	return nil
}

// Done is closed when the client is broken or closed, tor's death included.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the client is broken (Unavailable), and is nil while it works.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func (c *Client) fail(cause error) {
	c.once.Do(func() {
		c.err = fault.Wrap(cause, fault.Unavailable, "the connection to tor is broken").WithHint("vpnctl tor status")
		close(c.done)
		c.cmd.lim.Close()
		c.ev.lim.Close()
	})
}

// lock takes a lock made of a channel unless ctx or the client ends first.
func (c *Client) lock(ctx context.Context, l chan struct{}) error {
	select {
	case l <- struct{}{}:
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fault.From(ctx.Err())
	}
	err := c.Err()
	if err == nil && ctx.Err() != nil {
		err = fault.From(ctx.Err())
	}
	if err != nil {
		<-l
	}
	return err
}

// broken breaks the client and picks the error for the call that noticed.
func (c *Client) broken(ctx context.Context, cause error) error {
	c.fail(cause)
	switch {
	case ctx.Err() != nil:
		return fault.From(ctx.Err())
	case errors.Is(cause, os.ErrDeadlineExceeded):
		return fault.Wrap(cause, fault.Timeout, "tor did not answer in time")
	}
	return c.err
}

// do sends one command. A check that fails means that the reply belongs to
// another command or to another protocol, and breaks the client.
func (c *Client) do(ctx context.Context, line string, check func(*control.Response) error) error {
	if err := checkLine(line); err != nil {
		return err
	}
	if err := c.lock(ctx, c.turn); err != nil {
		return err
	}
	defer func() { <-c.turn }()
	resp, err := c.cmd.request(ctx, line)
	if resp == nil {
		return c.broken(ctx, err)
	}
	if err != nil {
		return refusal(line, resp)
	}
	if check != nil {
		if err := check(resp); err != nil {
			return c.broken(ctx, err)
		}
	}
	return nil
}

func checkLine(line string) error {
	if strings.ContainsAny(line, "\r\n\x00") {
		return fault.New(fault.Invalid, "an argument for tor contains a line break or a NUL")
	}
	if len(line) > maxLine {
		return fault.New(fault.Invalid, "a command for tor is longer than %d bytes", maxLine)
	}
	return nil
}

// refusal turns a 4xx or 5xx reply into an error (control-spec, section 4).
func refusal(line string, resp *control.Response) error {
	verb, _, _ := strings.Cut(line, " ")
	code := fault.Unavailable
	switch resp.Err.Code {
	case control.StatusErrResourceExhausted:
		code = fault.Exhausted
	case control.StatusErrUnrecognizedCmd, control.StatusErrUnimplementedCmd:
		code = fault.Unimplemented
	case control.StatusErrSyntaxError, control.StatusErrSyntaxErrorArg, control.StatusErrUnrecognizedCmdArg,
		control.StatusErrInvalidConfigValue, control.StatusErrInvalidDescriptor:
		code = fault.Invalid
	case control.StatusErrAuthenticationRequired, control.StatusErrBadAuthentication:
		code = fault.Denied
	case control.StatusErrUnrecognizedEntity:
		code = fault.NotFound
	case control.StatusErrUnmanagedEntity:
		code = fault.Conflict
	}
	text := resp.Reply
	if len(text) > 200 {
		text = text[:200]
	}
	return fault.New(code, "tor refused %s: %d %q", verb, resp.Err.Code, text)
}
