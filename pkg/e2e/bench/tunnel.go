//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/lab"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// The bare tunnel has the addresses that vpnd would use.
const (
	tunnelMTU  = 1420
	tunnelPort = 51820
	tunnelName = "wg0"
)

var (
	bareServer = netip.MustParsePrefix("10.8.0.1/16")
	bareClient = netip.MustParsePrefix("10.8.0.2/32")
)

// tunnel is one TCP stream from the internet through lane vpn, beside the same
// stream through WireGuard devices that nothing else touches.
func tunnel(ctx context.Context, s *suite) (err error) {
	if err := s.running(ctx); err != nil {
		return err
	}
	if err := s.joinLane(ctx); err != nil {
		return fmt.Errorf("connect through vpnd: %w", err)
	}
	bare, backend, err := s.bareTunnel(ctx)
	if bare != nil {
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
			defer cancel()
			err = errors.Join(err, bare.Close(end))
		}()
	}
	if err != nil {
		return fmt.Errorf("connect without vpnd: %w", err)
	}
	const d = 1500 * time.Millisecond
	var through, without samples
	type end struct {
		l   *lab.Lab
		out *samples
	}
	ends := []end{{s.Lab, &through}, {bare, &without}}
	for range pick(s.options, 8, 3) {
		for _, e := range ends {
			rate, err := stream(ctx, e.l.Machine(lab.Client(1)), d)
			if err != nil {
				return err
			}
			*e.out = append(*e.out, rate)
		}
		slices.Reverse(ends) // A B B A: a machine that gets slower or faster favours neither
	}
	r := result{
		Name: "tunnel", What: "tunnel throughput, lane vpn, one TCP stream", Unit: inMbit,
		Value: through.median(), Floor: without.median(),
		FloorIs: "the same devices set up by hand in a lab of their own: no vpnd, no firewall table, no NAT",
	}
	r.goal("95 %", r.ratio() >= 0.95)
	r.keep("lane_vpn", through)
	r.keep("bare", without)
	r.note("back end %s on both sides; download of %.1f s each, in turns; lane vpn %s; bare %s", backend, d.Seconds(), through.list(inMbit), without.list(inMbit))
	r.note("both ends of the tunnel, the sender and the receiver share the cores of this machine")
	s.report.add(r)
	return nil
}

// peering is what the client's end of a tunnel is told.
type peering struct {
	private   wgdev.PrivateKey
	server    wgdev.Peer
	addresses []netip.Prefix
	mtu       int
}

// joinLane connects the client machine to lane vpn.
func (s *suite) joinLane(ctx context.Context) error {
	devices, err := s.newDevices(ctx, 1, devicesPerUser, 1)
	if err != nil {
		return err
	}
	c, err := s.openWire(ctx, s.apiAddress())
	if err != nil {
		return err
	}
	defer c.close()
	got, private, err := devices[0].open(c)
	if err != nil {
		return err
	}
	p, err := peeringOf(got.Lanes.VPN, private)
	if err != nil {
		return err
	}
	_, err = s.clientEnd(ctx, s.Lab, "lane-client", p)
	return err
}

// peeringOf reads what the server says of a lane. All addresses lead into it.
func peeringOf(lane client.LaneConfig, private wgdev.PrivateKey) (peering, error) {
	p := peering{private: private, mtu: lane.MTU}
	for _, a := range lane.Addresses {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			return p, err
		}
		p.addresses = append(p.addresses, prefix)
	}
	if len(p.addresses) == 0 {
		return p, errors.New("a session without addresses")
	}
	key, errKey := wgdev.ParsePublicKey(lane.ServerPublicKey)
	psk, errPSK := wgdev.ParsePresharedKey(lane.PresharedKey)
	endpoint, errEndpoint := netip.ParseAddrPort(lane.Endpoint)
	p.server = wgdev.Peer{PublicKey: key, PresharedKey: psk, Endpoint: endpoint, AllowedIPs: everywhere}
	return p, errors.Join(errKey, errPSK, errEndpoint)
}

var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// bareTunnel builds a lab in which nothing but two WireGuard devices runs, and
// connects it. The lab is the caller's to close, also after an error.
func (s *suite) bareTunnel(ctx context.Context) (l *lab.Lab, backend wgdev.Backend, err error) {
	if l, err = lab.New(ctx, lab.Options{Clients: 1}); err != nil {
		return nil, "", err
	}
	serverKey, errServer := wgdev.GeneratePrivateKey()
	clientKey, errClient := wgdev.GeneratePrivateKey()
	psk, errPSK := wgdev.GeneratePresharedKey()
	run, errRun := s.sub("bare-server")
	if err := errors.Join(errServer, errClient, errPSK, errRun); err != nil {
		return l, "", err
	}
	server := l.Machine(lab.Server)
	dev, err := s.openDevice(ctx, server, tunnelName, run, wgdev.Config{PrivateKey: serverKey, ListenPort: tunnelPort})
	if err != nil {
		return l, "", err
	}
	defer dev.Close()
	err = dev.Upsert(ctx, wgdev.Peer{PublicKey: clientKey.Public(), PresharedKey: psk, AllowedIPs: []netip.Prefix{bareClient}})
	if err != nil {
		return l, "", err
	}
	err = onLinks(server, func(links *link.Links) error {
		_, err := links.EnableForwarding(ctx)
		return errors.Join(err, links.Apply(ctx, link.Interface{
			Name: tunnelName, MTU: tunnelMTU, Addresses: []netip.Prefix{bareServer}, Up: true,
		}))
	})
	if err != nil {
		return l, "", err
	}
	// Without NAT the internet has to know the way back.
	err = onLinks(l.Machine(lab.Internet), func(links *link.Links) error {
		return links.AddRoute(bareServer, server.IPv4(), server.Uplink())
	})
	if err != nil {
		return l, "", err
	}
	backend, err = s.clientEnd(ctx, l, "bare-client", peering{
		private: clientKey, addresses: []netip.Prefix{bareClient}, mtu: tunnelMTU,
		server: wgdev.Peer{
			PublicKey: serverKey.Public(), PresharedKey: psk, Endpoint: netip.AddrPortFrom(server.IPv4(), tunnelPort), AllowedIPs: everywhere,
		},
	})
	return l, backend, err
}

// clientEnd makes the client's end of a tunnel, which is the same for both labs,
// and leads the target's address into it.
func (s *suite) clientEnd(ctx context.Context, l *lab.Lab, run string, p peering) (wgdev.Backend, error) {
	dir, err := s.sub(run)
	if err != nil {
		return "", err
	}
	m := l.Machine(lab.Client(1))
	dev, err := s.openDevice(ctx, m, tunnelName, dir, wgdev.Config{PrivateKey: p.private})
	if err != nil {
		return "", err
	}
	defer dev.Close()
	if err := dev.Upsert(ctx, p.server); err != nil {
		return "", err
	}
	return dev.Backend(), onLinks(m, func(links *link.Links) error {
		err := links.Apply(ctx, link.Interface{Name: tunnelName, MTU: p.mtu, Addresses: p.addresses, Up: true})
		if err != nil {
			return err
		}
		return links.AddRoute(netip.PrefixFrom(lab.TargetV4, 32), netip.Addr{}, tunnelName)
	})
}

func onLinks(m *lab.Machine, fn func(*link.Links) error) error {
	return m.Do(func() error {
		links, err := link.Open()
		if err != nil {
			return err
		}
		defer links.Close()
		return fn(links)
	})
}

// stream downloads from the target for a time and gives Mbit/s. The beginning,
// in which TCP finds its speed, is not counted.
func stream(ctx context.Context, m *lab.Machine, d time.Duration) (float64, error) {
	const slowStart, slack = 500 * time.Millisecond, 5 * time.Second
	conn, err := m.DialContext(ctx, "tcp", netip.AddrPortFrom(lab.TargetV4, 80).String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(slowStart + d + slack)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(conn, "GET /bytes?n=%d HTTP/1.1\r\nHost: %s\r\n\r\n", int64(1)<<38, lab.TargetV4); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	from := time.Now().Add(slowStart)
	to := from.Add(d)
	var bytes int64
	var began, now time.Time
	for now.Before(to) {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, fmt.Errorf("read the stream: %w", err)
		}
		now = time.Now()
		switch {
		case !began.IsZero():
			bytes += int64(n)
		case now.After(from):
			began = now
		}
	}
	return float64(bytes) * 8 / now.Sub(began).Seconds() / 1e6, nil
}
