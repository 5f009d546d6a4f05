package gateway

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// limiter bounds the connections held at once. When there are too many, the
// one that has waited longest without a request makes room: whoever opens ten
// thousand idle connections closes their own, not other people's.
type limiter struct {
	max  int
	mu   sync.Mutex
	open map[net.Conn]*list.Element // nil element: a request is being answered
	idle *list.List                 // of net.Conn, longest waiting first
}

func newLimiter(n int) *limiter {
	return &limiter{max: n, open: map[net.Conn]*list.Element{}, idle: list.New()}
}

// observe is an http.Server's ConnState hook.
func (l *limiter) observe(c net.Conn, state http.ConnState) {
	if victim := l.note(c, state); victim != nil {
		_ = victim.Close()
	}
}

func (l *limiter) note(c net.Conn, state http.ConnState) (victim net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.open[c]; e != nil {
		l.idle.Remove(e)
	}
	switch state {
	case http.StateActive:
		l.open[c] = nil
	case http.StateNew, http.StateIdle:
		l.open[c] = l.idle.PushBack(c)
	case http.StateClosed, http.StateHijacked:
		delete(l.open, c)
	}
	if state != http.StateNew || len(l.open) <= l.max {
		return nil
	}
	front := l.idle.Front()
	l.idle.Remove(front)
	victim = front.Value.(net.Conn)
	delete(l.open, victim)
	return victim
}
