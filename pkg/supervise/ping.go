//go:build linux

package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxPong   = 16 << 10 // bytes of an answer
	maxReason = 256      // bytes of a reason that are shown
)

// pong is what became of one ping.
type pong struct {
	err     error // no pong came
	ready   bool
	reason  string
	latency time.Duration
}

// parsePong reads the answer to a ping: one JSON object with "status":"pong".
// "ready" is true unless it is false; "reason" says why, in words. Other
// members are ignored: the answer is the service's to extend.
func parsePong(line []byte) (ready bool, reason string, err error) {
	var answer struct {
		Status string `json:"status"`
		Ready  *bool  `json:"ready"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return false, "", errors.New("the answer to a ping is not JSON")
	}
	if answer.Status != "pong" {
		return false, "", fmt.Errorf(`the answer to a ping has status %q, not "pong"`, plain(answer.Status, 32))
	}
	return answer.Ready == nil || *answer.Ready, plain(answer.Reason, maxReason), nil
}

// plain makes text of a child fit for a terminal: printable, one line, bounded.
func plain(s string, limit int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s))
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// ping asks once. A service that has not come to accepting yet finds the
// question in its backlog; the timeout bounds the wait.
func ping(ctx context.Context, path string, timeout time.Duration) pong {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	ready, reason, err := ask(ctx, path)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer to a ping within %v", timeout)
		}
		return pong{err: err}
	}
	return pong{ready: ready, reason: reason, latency: time.Since(start)}
}

func ask(ctx context.Context, path string) (ready bool, reason string, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	// Closing the connection is what ends a read when the context ends early.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, `{"action":"ping"}`+"\n"); err != nil {
		return false, "", fmt.Errorf("send a ping: %w", err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxPong)).ReadBytes('\n')
	if err != nil && !(errors.Is(err, io.EOF) && len(line) > 0) {
		return false, "", fmt.Errorf("read the answer to a ping: %w", err)
	}
	return parsePong(line)
}

// monitor pings a child until its watch ends. Until the service is ready it
// asks often, so that readiness is noticed at once: every FirstPing at first,
// then after a tenth of the time waited so far, and never less often than the
// interval.
func (c *child) monitor(path string, h Heartbeat, first time.Duration) {
	waitingSince := c.started
	wasReady := false
	for {
		p := ping(c.watch, path, time.Duration(h.Timeout))
		select {
		case c.pongs <- p:
		case <-c.watch.Done():
			return
		}
		delay := time.Duration(h.Interval)
		switch ready := p.err == nil && p.ready; {
		case ready:
			wasReady = true
		case p.err == nil || !wasReady:
			if wasReady {
				wasReady, waitingSince = false, time.Now()
			}
			delay = min(delay, max(first, time.Since(waitingSince)/10))
		}
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-c.watch.Done():
			t.Stop()
			return
		}
	}
}
