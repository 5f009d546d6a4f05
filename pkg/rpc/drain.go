package rpc

import (
	"net"
	"net/http"
	"time"
)

// The bounds of a drain.
const (
	drainTimeout = 5 * time.Second        // for running calls
	quietTimeout = 200 * time.Millisecond // for the first byte of a new connection, or of any over a network
)

// drain lets what has been asked be answered, and ends every connection. The
// listeners are closed, so there will be no more. http.Server.Shutdown would do
// it with losses: it drops requests that it has read already, closes
// connections on which one may just be arriving, and waits five seconds for
// each on which nobody has spoken.
func (s *Server) drain() {
	s.mu.Lock()
	s.empty = make(chan struct{})
	s.checkEmpty()
	s.mu.Unlock()
	s.endQuiet(true)
	timer := time.AfterFunc(quietTimeout, func() { s.endQuiet(false) })
	defer timer.Stop()
	select {
	case <-s.empty:
	case <-time.After(drainTimeout):
	}
	_ = s.http.Close() // whatever is left
}

// endQuiet ends connections as soon as they are quiet: at first those that may
// end at once.
func (s *Server) endQuiet(sure bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.end(sure)
	}
}

// connState follows the connections for the drain.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	if ac, ok := c.(*answeringConn); ok {
		switch state {
		case http.StateNew:
			s.mu.Lock()
			s.conns[ac] = struct{}{}
			s.mu.Unlock()
		case http.StateIdle:
			ac.falls()
		case http.StateClosed, http.StateHijacked:
			s.mu.Lock()
			delete(s.conns, ac)
			s.checkEmpty()
			s.mu.Unlock()
		}
	}
	if s.cfg.ConnState != nil {
		s.cfg.ConnState(c, state)
	}
}

// checkEmpty wants mu held.
func (s *Server) checkEmpty() {
	if s.empty == nil || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// end makes the connection end as soon as it is quiet: now, or after the
// answer to what is being asked. Reading is interrupted and not the connection
// closed, so that either some of a request has been read, and it is answered,
// or none has, which the kernel tells a caller on a Unix socket. The caller
// expects it of a connection that has been used; with sure, only those end.
func (c *answeringConn) end(sure bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sure && (c.ready == nil || !c.used) {
		return
	}
	c.ending = true
	_ = c.setDeadline() // the connection may be gone
}

// speaks notes that some of a request has come.
func (c *answeringConn) speaks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.quiet {
		c.quiet = false
		if c.ending {
			_ = c.setDeadline()
		}
	}
}

// falls notes that the answer has gone: the connection falls quiet.
func (c *answeringConn) falls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quiet, c.used = true, true
	if c.ending {
		_ = c.setDeadline()
	}
}

// SetReadDeadline sets net/http's deadline, unless reading is to end.
func (c *answeringConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.setDeadline()
}

// SetDeadline sets both, as net.Conn has it.
func (c *answeringConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t) // fails as the other does
	return c.SetWriteDeadline(t)
}

// setDeadline wants mu held.
func (c *answeringConn) setDeadline() error {
	if c.ending && c.quiet {
		return c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	return c.Conn.SetReadDeadline(c.deadline)
}
