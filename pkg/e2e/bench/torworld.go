//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/lab/tornet"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// Where the tor of lane tor has its files on the server.
const (
	torData    = "/var/lib/vpnd/tor/data"
	torControl = "/run/vpnd/tor/control.sock"
	torSOCKS   = "/run/vpnd/tor/socks.sock"
)

// laneTimeout bounds one try to bring lane tor up.
const laneTimeout = 30 * time.Second

// onion is lane tor in the suite's lab: a Tor network of its own, and devices
// with a tunnel each.
type onion struct {
	network *tornet.Network
	devices []*torDevice
}

// torDevice is a device whose packets go through its own tunnel into lane tor.
// All of them are on the one client machine, so a connection says whose it is
// by the interface that it is bound to.
type torDevice struct {
	*device
	iface string
	ipv4  netip.Addr
	m     *lab.Machine
}

// prepareTor starts the Tor network, and vpnd with it.
func prepareTor(ctx context.Context, s *suite) (end func() error, err error) {
	progress(os.Stderr, "a Tor network is being started")
	network, err := tornet.Start(ctx, s.Lab)
	if err != nil {
		return nil, err
	}
	s.onion = &onion{network: network}
	if err = s.WriteConfig(cheapPasswords(s.Config()) + site.TorConfig(network)); err == nil {
		if err = s.running(ctx); err == nil {
			err = s.bootstrap(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(err, network.Close())
	}
	return network.Close, nil
}

// bootstrap waits until lane tor is up for the first time. A client that asks
// the young network's only directory too early gets a part of what it needs and
// asks again much later, so it begins anew then.
func (s *suite) bootstrap(ctx context.Context) error {
	const tries = 4
	for try := 1; ; try++ {
		err := s.laneUp(ctx)
		if err == nil || ctx.Err() != nil || try == tries {
			return err
		}
		if err := s.stopTor(ctx, true); err != nil {
			return err
		}
		if _, err := tor.Start.Call(ctx, s.ops, nil); err != nil {
			return err
		}
	}
}

// laneUp returns when the lane is up.
func (s *suite) laneUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, laneTimeout)
	defer cancel()
	for {
		st, err := tor.GetStatus.Call(ctx, s.ops, nil)
		if err == nil && st.Lane == "up" {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("lane tor is %s: %s", st.Lane, st.Reason)
		}
		if pause(ctx, 5*time.Millisecond) != nil {
			return err
		}
	}
}

// stopTor ends tor, and makes it forget the network if it shall.
func (s *suite) stopTor(ctx context.Context, forget bool) error {
	if _, err := tor.Stop.Call(ctx, s.ops, nil); err != nil || !forget {
		return err
	}
	return s.Machine(lab.Server).Do(func() error { return os.RemoveAll(torData) })
}

// wish sets the wish for the lane; down and up are true when this returns.
func (s *suite) wish(ctx context.Context, w tor.Wish) error {
	req := &tor.WishRequest{}
	req.Body.Wish = w
	st, err := tor.SetWish.Call(ctx, s.ops, req)
	if err != nil {
		return err
	}
	if want := map[tor.Wish]string{tor.WishUp: "up", tor.WishDown: "blocked"}[w]; st.Lane != want {
		return fmt.Errorf("after a wish of %s lane tor is %s: %s", w, st.Lane, st.Reason)
	}
	return nil
}

// torDevices gives n devices with a tunnel; those that are missing are made,
// each with a user of its own.
func (s *suite) torDevices(ctx context.Context, n int) ([]*torDevice, error) {
	have := len(s.onion.devices)
	if have >= n {
		return s.onion.devices[:n], nil
	}
	fresh, err := s.newDevices(ctx, n-have, 1, 4)
	if err != nil {
		return nil, err
	}
	c, err := s.openWire(ctx, s.apiAddress())
	if err != nil {
		return nil, err
	}
	defer c.close()
	for _, d := range fresh {
		t := &torDevice{device: d, iface: fmt.Sprintf("tor%d", len(s.onion.devices)), m: s.Machine(lab.Client(1))}
		if err := s.joinTor(ctx, c, t); err != nil {
			return nil, fmt.Errorf("connect %s to lane tor: %w", d.user, err)
		}
		s.onion.devices = append(s.onion.devices, t)
	}
	return s.onion.devices, nil
}

// joinTor opens a device's session and its tunnel of lane tor.
func (s *suite) joinTor(ctx context.Context, c *wire, t *torDevice) error {
	got, private, err := t.open(c)
	if err != nil {
		return err
	}
	p, err := peeringOf(got.Lanes.Tor, private)
	if err != nil {
		return err
	}
	t.ipv4 = p.addresses[0].Addr()
	run, err := s.sub("client-" + t.iface)
	if err != nil {
		return err
	}
	dev, err := s.openDevice(ctx, t.m, t.iface, run, wgdev.Config{PrivateKey: private})
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := dev.Upsert(ctx, p.server); err != nil {
		return err
	}
	return onLinks(t.m, func(links *link.Links) error {
		err := links.Apply(ctx, link.Interface{Name: t.iface, MTU: p.mtu, Addresses: p.addresses, Up: true})
		if err != nil || len(s.onion.devices) > 0 {
			return err
		}
		// Only IPv6 needs a route besides the interface; the first device has it.
		return links.AddRoute(netip.PrefixFrom(lab.TargetV6, 128), netip.Addr{}, t.iface)
	})
}

// dial connects through the device's tunnel. The address is a literal one.
func (t *torDevice) dial(ctx context.Context, network string, to netip.AddrPort) (conn net.Conn, err error) {
	err = t.m.Do(func() error {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var bound error
			err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), t.iface) })
			return errors.Join(err, bound)
		}}
		var err error
		conn, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

var targetPage = netip.AddrPortFrom(lab.TargetV4, 80)

// pageTimeout bounds a page through Tor, circuits included.
const pageTimeout = 15 * time.Second

// page fetches who is seen on a connection of its own, which must be an exit.
func (s *suite) page(ctx context.Context, t *torDevice) error {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	conn, err := t.dial(ctx, "tcp", targetPage)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET /ip HTTP/1.0\r\nHost: %s\r\n\r\n", lab.TargetV4); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("read a page through lane tor: %w", err)
	}
	_, seen, _ := strings.Cut(string(answer), "\r\n\r\n")
	for _, e := range s.onion.network.Exits() {
		if strings.TrimSpace(seen) == e.V4.String() {
			return nil
		}
	}
	return fmt.Errorf("the target saw no exit: %q", answer)
}

// echoes is an open connection to something that echoes.
type echoes struct {
	net.Conn
	r *bufio.Reader
}

func (t *torDevice) openEcho(ctx context.Context) (*echoes, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	conn, err := t.dial(ctx, "tcp", netip.AddrPortFrom(lab.TargetV4, 7))
	if err != nil {
		return nil, err
	}
	e := &echoes{conn, bufio.NewReader(conn)}
	if err := e.turn(pageTimeout); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return e, nil
}

// turn says something and wants to hear it in time.
func (e *echoes) turn(within time.Duration) error {
	const said = "still here\n"
	if err := e.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := io.WriteString(e, said); err != nil {
		return err
	}
	heard, err := e.r.ReadString('\n')
	if err == nil && heard != said {
		err = fmt.Errorf("the echo is %q", heard)
	}
	return err
}
