package gate

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/secret"
	"vpnd/pkg/wgdev"
)

// Time limits of one attempt. Inside the tunnel an answer comes at once or, when
// the tunnel is dead, never.
const (
	insideTimeout  = 3 * time.Second
	outsideTimeout = 10 * time.Second
	connectTimeout = 4 * time.Second
	closeTimeout   = 2 * time.Second
)

// Way is how a call reached the server.
type Way string

// The ways.
const (
	Inside  Way = "inside"  // through the tunnel
	Outside Way = "outside" // around it
)

// Client calls one server. Make it with NewClient.
type Client struct {
	addr     Address
	pin      Pin
	resolver *Resolver
	mark     uint32
	outside  *rpc.Conn
	access   atomic.Pointer[secret.Text]

	mu     sync.Mutex
	inside *rpc.Conn // nil without a tunnel
}

// NewClient prepares calls to the server at a that has the pin. Connections
// around the tunnel carry the firewall mark.
func NewClient(a Address, pin Pin, resolver *Resolver, mark uint32) *Client {
	c := &Client{addr: a, pin: pin, resolver: resolver, mark: mark}
	c.outside = c.conn(a.HostPort(), c.Dial)
	return c
}

// conn never tries again by itself: who calls knows better when.
func (c *Client) conn(addr string, dial func(context.Context) (net.Conn, error)) *rpc.Conn {
	return rpc.DialTLS(addr, c.pin.TLS(), rpc.Options{Patience: -1, Dial: dial, Token: func() string {
		if t := c.access.Load(); t != nil {
			return t.Reveal()
		}
		return ""
	}})
}

// Dial connects to the server around the tunnel.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	return DialAround(ctx, c.addr, c.resolver, c.mark)
}

// DialAround connects to a, trying each of its addresses in turn.
func DialAround(ctx context.Context, a Address, r *Resolver, mark uint32) (net.Conn, error) {
	addrs, err := r.Lookup(ctx, a.Host)
	if err != nil {
		return nil, err
	}
	d := markedDialer(mark)
	var all error
	for _, ip := range addrs {
		one, cancel := context.WithTimeout(ctx, connectTimeout)
		conn, err := d.DialContext(one, "tcp", netip.AddrPortFrom(ip, a.Port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
		all = errors.Join(all, err)
	}
	return nil, all
}

// Enter makes the server's address inside the tunnel known; from are this
// machine's addresses there.
func (c *Client) Enter(control netip.AddrPort, from []netip.Prefix) {
	var local *net.TCPAddr
	for _, p := range from {
		if p.Addr().Is4() == control.Addr().Is4() {
			local = &net.TCPAddr{IP: p.Addr().AsSlice()}
		}
	}
	var conn *rpc.Conn
	if local != nil && control.IsValid() {
		// Bound to the tunnel's address, it cannot take another way unnoticed.
		d := &net.Dialer{LocalAddr: local, Timeout: connectTimeout}
		host := net.JoinHostPort(control.Addr().String(), strconv.Itoa(int(control.Port())))
		conn = c.conn(host, func(ctx context.Context) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", host)
		})
	}
	c.setInside(conn)
}

// Leave forgets the way through the tunnel.
func (c *Client) Leave() { c.setInside(nil) }

func (c *Client) setInside(conn *rpc.Conn) {
	c.mu.Lock()
	old := c.inside
	c.inside = conn
	c.mu.Unlock()
	if old != nil {
		old.CloseIdle()
	}
}

// Initiate opens the session.
func (c *Client) Initiate(ctx context.Context, access secret.Text, key wgdev.Key) (client.Initiated, error) {
	c.access.Store(&access)
	req := &client.InitiateRequest{}
	req.Body.PublicKey = key.String()
	resp, _, _, err := call(ctx, c, client.PostInitiate, req, true)
	if err != nil {
		return client.Initiated{}, err
	}
	return *resp, nil
}

// Heartbeat keeps the session online and tells which way it went.
func (c *Client) Heartbeat(ctx context.Context, access secret.Text) (client.Beat, Way, error) {
	c.access.Store(&access)
	resp, way, _, err := call(ctx, c, client.PostHeartbeat, nil, true)
	if err != nil {
		return client.Beat{}, way, err
	}
	return *resp, way, nil
}

// LaneStates tells how the lanes are. An older server knows no such operation.
func (c *Client) LaneStates(ctx context.Context, access secret.Text) (client.LaneStates, error) {
	c.access.Store(&access)
	resp, _, _, err := call(ctx, c, client.GetLaneStates, nil, true)
	if err != nil {
		return client.LaneStates{}, err
	}
	return *resp, nil
}

// Renew trades the refresh token. When it fails, sent tells whether the token
// may have been spent all the same: it was sent, and no refusal came back.
func (c *Client) Renew(ctx context.Context, refresh secret.Text) (t client.Tokens, sent bool, err error) {
	req := &client.RefreshRequest{}
	req.Body.RefreshToken = refresh.Reveal()
	// A pooled connection that the server has closed meanwhile would leave it open
	// whether the token got through.
	c.CloseIdle()
	resp, _, sent, err := call(ctx, c, client.PostReauth, req, false)
	if err != nil {
		return client.Tokens{}, sent, err
	}
	return *resp, true, nil
}

// Close closes the session. It goes around the tunnel first: when the server
// answers it has removed the peer, and the answer would not come through.
func (c *Client) Close(ctx context.Context, access secret.Text) error {
	c.access.Store(&access)
	_, _, err := attempt(ctx, c.outside, client.PostClose, nil, closeTimeout)
	c.mu.Lock()
	inside := c.inside
	c.mu.Unlock()
	if err != nil && inside != nil && Unanswered(err) {
		_, _, err = attempt(ctx, inside, client.PostClose, nil, closeTimeout)
	}
	return err
}

// Logout voids the refresh token and closes the session.
func (c *Client) Logout(ctx context.Context, refresh secret.Text) error {
	req := &client.RefreshRequest{}
	req.Body.RefreshToken = refresh.Reveal()
	_, _, _, err := call(ctx, c, client.PostLogout, req, true)
	return err
}

// CloseIdle drops pooled connections: the network has changed.
func (c *Client) CloseIdle() {
	c.outside.CloseIdle()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside != nil {
		c.inside.CloseIdle()
	}
}

// call goes through the tunnel where there is one, and else, or when the tunnel
// is silent, around it. What is not repeatable goes the second way only when it
// certainly was not sent the first.
func call[Req, Resp any](ctx context.Context, c *Client, op rpc.Op[Req, Resp], req *Req, repeatable bool) (*Resp, Way, bool, error) {
	c.mu.Lock()
	inside := c.inside
	c.mu.Unlock()
	if inside != nil {
		resp, sent, err := attempt(ctx, inside, op, req, insideTimeout)
		silent := errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout)
		if ctx.Err() != nil || !silent || sent && !repeatable {
			return resp, Inside, sent, err
		}
	}
	resp, sent, err := attempt(ctx, c.outside, op, req, outsideTimeout)
	return resp, Outside, sent, err
}

func attempt[Req, Resp any](ctx context.Context, conn *rpc.Conn, op rpc.Op[Req, Resp], req *Req, limit time.Duration) (*Resp, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A connection that the request could be written to counts as written to.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	resp, err := op.Call(ctx, conn, req)
	// A refusal is the server's own word; what has a cause on this side is not.
	refused := err != nil && fault.From(err).Unwrap() == nil
	return resp, connected.Load() && !refused, err
}

// Unanswered tells whether nobody with a say in the matter has answered, so that
// trying again later makes sense.
func Unanswered(err error) bool {
	switch fault.CodeOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Throttled, fault.Canceled, fault.Internal:
		return true
	}
	return false
}
