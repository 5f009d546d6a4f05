package tor

import "net"

// maxConns bounds the connections of the page, and those of DNS over TCP.
const maxConns = 256

// limited closes new connections while too many are open.
type limited struct {
	net.Listener
	slots chan struct{}
}

func (l limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &slotted{Conn: c, slots: l.slots, once: make(chan struct{}, 1)}, nil
		default:
			_ = c.Close()
		}
	}
}

type slotted struct {
	net.Conn
	slots, once chan struct{}
}

func (c *slotted) Close() error {
	select {
	case c.once <- struct{}{}:
		<-c.slots
	default:
	}
	return c.Conn.Close()
}
