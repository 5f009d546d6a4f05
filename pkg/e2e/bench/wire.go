//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"vpnd/pkg/rpc"
)

// callTimeout bounds one call of the load.
const callTimeout = 15 * time.Second

// wire is one TLS connection that carries one HTTP request at a time. It does
// as little as a client can, because on a small machine the client's work is
// taken from the server's cores; the floors are measured with it too.
type wire struct {
	conn *tls.Conn
	rd   *bufio.Reader
	host string
	buf  []byte
}

// openWire connects from the client machine. The connection is closed by close,
// or at the latest with the world.
func (w *world) openWire(ctx context.Context, addr netip.AddrPort) (*wire, error) {
	raw, err := w.fromClient(addr)(ctx)
	if err != nil {
		return nil, err
	}
	return w.secure(ctx, raw, addr)
}

func (w *world) secure(ctx context.Context, raw net.Conn, addr netip.AddrPort) (*wire, error) {
	// Whom it talks to is not the question here.
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	context.AfterFunc(w.conns, func() { _ = raw.Close() })
	return &wire{conn: conn, rd: bufio.NewReader(conn), host: addr.String()}, nil
}

// openWires opens n of them to the client API.
func (w *world) openWires(ctx context.Context, n int, addr netip.AddrPort) ([]*wire, error) {
	out := make([]*wire, n)
	for i := range out {
		var err error
		if out[i], err = w.openWire(ctx, addr); err != nil {
			closeWires(out[:i])
			return nil, err
		}
	}
	return out, nil
}

func closeWires(all []*wire) {
	for _, c := range all {
		c.close()
	}
}

func (c *wire) close() { _ = c.conn.Close() }

// send performs op with a body that is encoded already and gives the answer's
// body. An answer that is no success is an error.
func (c *wire) send(op rpc.Info, token string, body []byte) ([]byte, error) {
	b := c.buf[:0]
	b = append(b, op.Method+" "+op.Path+" HTTP/1.1\r\nHost: "+c.host+"\r\n"...)
	if token != "" {
		b = append(b, "Authorization: Bearer "+token+"\r\n"...)
	}
	if body != nil {
		b = append(b, "Content-Type: application/json\r\n"...)
	}
	if op.Method != http.MethodGet {
		b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(append(b, "\r\n"...), body...)
	c.buf = b
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(b); err != nil {
		return nil, fmt.Errorf("%s: %w", op.ID, err)
	}
	res, err := http.ReadResponse(c.rd, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op.ID, err)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op.ID, err)
	}
	if res.StatusCode >= 300 {
		return nil, fmt.Errorf("%s: %s: %s", op.ID, res.Status, text)
	}
	return text, nil
}

// ask is send with values.
func ask[Resp any](c *wire, op rpc.Info, token string, body any) (*Resp, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	answer, err := c.send(op, token, text)
	if err != nil {
		return nil, err
	}
	out := new(Resp)
	if len(answer) > 0 {
		if err := json.Unmarshal(answer, out); err != nil {
			return nil, fmt.Errorf("%s: %w", op.ID, err)
		}
	}
	return out, nil
}
