package rpc

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"sync/atomic"
)

// Pong is the answer to the supervisor's {"action":"ping"}.
type Pong struct {
	Status string `json:"status"`           // "pong"
	Ready  bool   `json:"ready"`            // the service can do its work
	Reason string `json:"reason,omitempty"` // why not
}

// pingListener lets one socket serve HTTP and the heartbeat: HTTP never starts
// with '{', the heartbeat's JSON line always does.
type pingListener struct {
	net.Listener
	ready func() error
}

func (l pingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pingConn{Conn: c, ready: l.ready}, nil
}

type pingConn struct {
	net.Conn
	ready  func() error
	judged atomic.Bool
}

// Read answers a ping itself and reports the end of the connection; everything
// else passes through.
func (c *pingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.judged.Swap(true) && p[0] == '{' {
		return 0, c.answer(p[:n])
	}
	return n, err
}

func (c *pingConn) answer(first []byte) error {
	line, _, _ := bytes.Cut(first, []byte("\n"))
	var ping struct {
		Action string `json:"action"`
	}
	if json.Unmarshal(line, &ping) != nil || ping.Action != "ping" {
		return io.EOF
	}
	pong := Pong{Status: "pong", Ready: true}
	if err := c.ready(); err != nil {
		pong.Ready, pong.Reason = false, err.Error()
	}
	out, err := json.Marshal(pong)
	if err == nil {
		_, _ = c.Conn.Write(append(out, '\n'))
	}
	return io.EOF
}
