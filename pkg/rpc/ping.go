package rpc

import (
	"bytes"
	"encoding/json"
	"io"
)

// Pong is the answer to the supervisor's {"action":"ping"}.
type Pong struct {
	Status string `json:"status"`           // "pong"
	Ready  bool   `json:"ready"`            // the service can do its work
	Reason string `json:"reason,omitempty"` // why not
}

// maxPing bounds a heartbeat, in bytes.
const maxPing = 1024

// pong answers a heartbeat that begins with first, and gives io.EOF: the
// connection serves nothing else. HTTP never starts with '{', the heartbeat's
// JSON line always does. What is no heartbeat is not answered.
func (c *answeringConn) pong(first []byte) error {
	line := bytes.Clone(first)
	for !bytes.Contains(line, []byte("\n")) && !json.Valid(line) {
		if len(line) >= maxPing {
			return io.EOF
		}
		more := make([]byte, maxPing-len(line))
		n, err := c.Conn.Read(more)
		if n == 0 && err != nil {
			return io.EOF
		}
		line = append(line, more[:n]...)
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
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
	out, _ := json.Marshal(pong)           // always encodes
	_, _ = c.Conn.Write(append(out, '\n')) // the asker may be gone
	return io.EOF
}
