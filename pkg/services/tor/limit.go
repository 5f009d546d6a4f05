package tor

import (
	"net"
	"net/netip"
	"sync"
)

const (
	// maxConns bounds the connections of the page, and those of DNS over TCP.
	maxConns = 1024
	// maxEach bounds those of one address, so that no device takes them all.
	maxEach = 8
)

// slots are the connections that may be open at once.
type slots struct {
	all, each int

	mu     sync.Mutex
	taken  int
	owners map[netip.Addr]int
}

func newSlots(all, each int) *slots {
	return &slots{all: all, each: each, owners: map[netip.Addr]int{}}
}

func (s *slots) take(owner netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.all || s.owners[owner] >= s.each {
		return false
	}
	s.taken++
	s.owners[owner]++
	return true
}

func (s *slots) give(owner netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.owners[owner]--; s.owners[owner] == 0 {
		delete(s.owners, owner)
	}
}

// limited closes new connections while too many are open.
type limited struct {
	net.Listener
	slots *slots
}

func (l limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err == nil && l.slots.take(peer.Addr()) {
			return &slotted{Conn: c, give: sync.OnceFunc(func() { l.slots.give(peer.Addr()) })}, nil
		}
		_ = c.Close()
	}
}

type slotted struct {
	net.Conn
	give func()
}

func (c *slotted) Close() error {
	c.give()
	return c.Conn.Close()
}
