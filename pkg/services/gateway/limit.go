package gateway

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// limiter bounds the connections held at once. When there are too many, one
// makes room: of those that wait between two requests, or for the first one,
// the one that has waited longest; if there is none but the newcomer, the one
// whose request takes longest. Whoever opens ten thousand connections, idle or
// sending a byte a second, closes their own and not other people's.
type limiter struct {
	max     int
	closing sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]place
	idle list.List // of net.Conn, longest waiting first
	busy list.List // of net.Conn, longest answered first
}

// place is where a connection stands in its list.
type place struct {
	in *list.List
	at *list.Element
}

func newLimiter(n int) *limiter { return &limiter{max: n, open: map[net.Conn]place{}} }

// observe is an http.Server's ConnState hook. It is called between accepting
// two connections, so it waits for nothing.
func (l *limiter) observe(c net.Conn, state http.ConnState) {
	if victim := l.note(c, state); victim != nil {
		l.closing.Go(func() { _ = victim.Close() }) // says goodbye, which may take seconds
	}
}

// wait returns when all victims are closed.
func (l *limiter) wait() { l.closing.Wait() }

func (l *limiter) note(c net.Conn, state http.ConnState) (victim net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.open[c]
	switch {
	case state == http.StateClosed || state == http.StateHijacked:
		l.leave(c)
	case state == http.StateNew:
		l.enter(c, &l.idle)
	case !known: // a victim that is still at it
	case state == http.StateActive:
		l.leave(c)
		l.enter(c, &l.busy)
	case state == http.StateIdle:
		l.leave(c)
		l.enter(c, &l.idle)
	}
	if len(l.open) <= l.max {
		return nil
	}
	victim = l.idle.Front().Value.(net.Conn) // at least the newcomer
	if victim == c && l.busy.Len() > 0 {
		victim = l.busy.Front().Value.(net.Conn)
	}
	l.leave(victim)
	return victim
}

func (l *limiter) enter(c net.Conn, in *list.List) { l.open[c] = place{in, in.PushBack(c)} }

func (l *limiter) leave(c net.Conn) {
	if p, ok := l.open[c]; ok {
		p.in.Remove(p.at)
		delete(l.open, c)
	}
}
