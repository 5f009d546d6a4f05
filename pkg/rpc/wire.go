package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"syscall"
	"time"
)

// The bounds of a pool of connections.
const (
	maxIdle      = 64
	idleFor      = 90 * time.Second // less than the server's
	maxReplyHead = 1 << 20          // bytes
)

// wire is one connection, used by one call at a time.
type wire struct {
	net.Conn
	head   *io.LimitedReader // what br reads from
	br     *bufio.Reader
	bw     *bufio.Writer
	reused bool
	since  time.Time // when it was put back
}

// unsent is the error of a call whose request was certainly not received as a
// whole, so that nobody can have acted on it.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// roundTrip sends the request once, on a pooled connection or a new one. The
// body of the answer has to be closed.
//
// It is all done here, by the goroutine that calls: net/http's Transport
// cannot say for sure whether a request was sent, and loses an answer when the
// next request on the same connection fails.
func (c *Conn) roundTrip(hr *http.Request) (*http.Response, error) {
	for {
		w, err := c.wire(hr.Context())
		if err != nil {
			return nil, err
		}
		if t := httptrace.ContextClientTrace(hr.Context()); t != nil && t.GotConn != nil {
			t.GotConn(httptrace.GotConnInfo{Conn: w.Conn, Reused: w.reused})
		}
		res, err := c.talk(w, hr)
		if _, ok := errors.AsType[unsent](err); ok && w.reused && hr.Context().Err() == nil {
			// The server closed the connection while nobody used it. The
			// others have most likely gone the same way.
			c.CloseIdle()
			continue
		}
		return res, err
	}
}

// wire gives the connection that was used last, or a new one.
func (c *Conn) wire(ctx context.Context) (*wire, error) {
	for {
		c.mu.Lock()
		n := len(c.idle)
		if n == 0 {
			c.mu.Unlock()
			break
		}
		w := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		if time.Since(w.since) < idleFor && (c.unix || !w.readable()) {
			return w, nil
		}
		_ = w.Close()
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn, head: &io.LimitedReader{R: conn}, bw: bufio.NewWriter(conn)}
	w.br = bufio.NewReader(w.head)
	return w, nil
}

// readable tells that the server has said something unasked, which is always
// its farewell. On a Unix socket the next write tells as much.
func (w *wire) readable() bool {
	conn := w.Conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	something := true
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		something = err != syscall.EAGAIN //nolint:errorlint // an Errno
		return true
	})
	return something || err != nil
}

// talk sends the request and reads the head of the answer. When the request's
// context ends, so does the connection.
func (c *Conn) talk(w *wire, hr *http.Request) (*http.Response, error) {
	if hr.GetBody != nil {
		hr.Body, _ = hr.GetBody() // that of a bytes.Reader never fails
	}
	stop := context.AfterFunc(hr.Context(), func() { _ = w.Close() })
	fail := func(err error) error {
		stop()
		_ = w.Close()
		return err
	}
	err := hr.Write(w.bw)
	if err == nil {
		err = w.bw.Flush()
	}
	if err != nil {
		// It may have been answered all the same, before it was complete.
		_ = w.SetReadDeadline(time.Now().Add(time.Second))
	}
	res, readErr := w.read(hr)
	switch {
	case err != nil && readErr != nil:
		// Some of the request was not taken.
		return nil, fail(unsent{err})
	case readErr != nil && c.unix && errors.Is(readErr, syscall.ECONNRESET):
		// On a Unix socket this means that some of it was left unread.
		return nil, fail(unsent{readErr})
	case readErr != nil:
		return nil, fail(readErr)
	}
	body := &answerBody{ReadCloser: res.Body, ended: res.Body == http.NoBody}
	body.close = func() error {
		if stop() && body.ended && !res.Close && err == nil {
			c.putBack(w)
			return nil
		}
		return w.Close()
	}
	res.Body = body
	return res, nil
}

// read reads the head of the next answer that is not a mere interim one.
func (w *wire) read(hr *http.Request) (*http.Response, error) {
	for {
		w.head.N = maxReplyHead
		res, err := http.ReadResponse(w.br, hr)
		switch {
		case err != nil && w.head.N == 0:
			return nil, fmt.Errorf("an answer begins with more than %d bytes of headers", maxReplyHead)
		case err != nil:
			return nil, err
		case res.StatusCode >= 200:
			w.head.N = math.MaxInt64
			return res, nil
		}
	}
}

// answerBody gives the connection back when the body has been read.
type answerBody struct {
	io.ReadCloser
	ended bool
	close func() error
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF //nolint:errorlint // as io.Reader has it
	return n, err
}

func (b *answerBody) Close() error { return b.close() }

func (c *Conn) putBack(w *wire) {
	w.reused, w.since = true, time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, w)
	// The longest unused are first.
	for len(c.idle) > maxIdle || time.Since(c.idle[0].since) > idleFor {
		_ = c.idle[0].Close()
		c.idle = c.idle[1:]
	}
}

// CloseIdle drops pooled connections, for callers whose network changed.
func (c *Conn) CloseIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.idle {
		_ = w.Close()
	}
	c.idle = nil
}
