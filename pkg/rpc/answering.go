package rpc

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"vpnd/pkg/fault"
)

// answeringListener gives every connection what HTTP does not: the heartbeat
// on Unix sockets, and a problem where net/http would answer in words.
type answeringListener struct {
	net.Listener
	ready func() error // answers heartbeats; nil: none come here
	tls   *tls.Config  // nil: plain
}

func (l answeringListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.tls != nil {
		c = tls.Server(c, l.tls) // shakes hands with the first Read, within the time for headers
	}
	return &answeringConn{Conn: c, ready: l.ready, judged: l.ready == nil, quiet: true}, nil
}

type answeringConn struct {
	net.Conn
	ready  func() error
	judged bool // the first byte is no heartbeat's; net/http reads from one goroutine at a time

	mu       sync.Mutex
	quiet    bool      // no byte of a request has come since the last answer
	used     bool      // a request has been answered
	ending   bool      // ends as soon as it is quiet
	deadline time.Time // for reading, as net/http wants it
}

// unixConn gives the Unix socket behind a connection of ours.
func unixConn(c net.Conn) (*net.UnixConn, bool) {
	if a, ok := c.(*answeringConn); ok {
		c = a.Conn
	}
	u, ok := c.(*net.UnixConn)
	return u, ok
}

// Read answers a ping itself and reports the end of the connection; everything
// else passes through.
func (c *answeringConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.speaks()
	}
	if n > 0 && !c.judged {
		c.judged = true
		if p[0] == '{' {
			return 0, c.pong(p[:n])
		}
	}
	if err != nil && c.ready == nil {
		c.explainTLS(err)
	}
	return n, err
}

// CloseWrite is what net/http asks for before it closes a connection that may
// have more to read.
func (c *answeringConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Write passes on everything but the answers that net/http gives before it
// asks a handler: to requests it cannot read. They are words with a status,
// even 501 and 505, which are as much the caller's doing as the others.
func (c *answeringConn) Write(p []byte) (int, error) {
	const least = "HTTP/1.1 4"
	if len(p) < len(least) || p[len(least)-1] != '4' && p[len(least)-1] != '5' {
		return c.Conn.Write(p)
	}
	answer, ok := unreadable(p)
	if !ok {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(answer); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unreadable makes a problem of net/http's own answer.
func unreadable(p []byte) ([]byte, bool) {
	head, words, _ := bytes.Cut(p, []byte("\r\n\r\n"))
	line, headers, _ := bytes.Cut(head, []byte("\r\n"))
	proto, reason, _ := strings.Cut(string(line), " ")
	status, err := strconv.Atoi(reason[:min(3, len(reason))])
	own := bytes.Equal(headers, []byte("Content-Type: text/plain; charset=utf-8\r\nConnection: close"))
	if !strings.HasPrefix(proto, "HTTP/1.") || err != nil || !own && status != http.StatusExpectationFailed {
		return nil, false
	}
	if status >= 500 {
		status = http.StatusBadRequest
	}
	detail := string(words)
	if detail == "" {
		detail = reason
	}
	return rawProblem(status, "this is no request that can be read ("+detail+")"), true
}

// rawProblem is a whole answer, after which the connection ends.
func rawProblem(status int, detail string) []byte {
	body, _ := json.Marshal(fault.Problem{ // a Problem always encodes
		Title: statusText(status), Status: status, Code: fault.Invalid, Detail: detail, RequestID: NewRequestID(),
	})
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, statusText(status), fault.ContentType, len(body), body)
}

// explainTLS answers those who speak HTTP where HTTPS is spoken, in HTTP.
func (c *answeringConn) explainTLS(err error) {
	if re, ok := errors.AsType[tls.RecordHeaderError](err); ok && re.Conn != nil {
		switch string(re.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO":
			_, _ = re.Conn.Write(rawProblem(http.StatusBadRequest, "this port speaks HTTPS"))
		}
	}
}
