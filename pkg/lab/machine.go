//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"vpnd/pkg/lab/netns"
)

// Machine is one machine of a lab.
type Machine struct {
	lab  *Lab
	plan machinePlan
}

// Name is the machine's name in the lab.
func (m *Machine) Name() string { return m.plan.name }

// Namespace is the name of its network namespace, as `ip netns` knows it.
func (m *Machine) Namespace() string { return namespaceName(m.lab.state.ID, m.plan.name) }

// IPv4 is the machine's public address; the internet's is its target's.
func (m *Machine) IPv4() netip.Addr {
	if m.plan.name == Internet {
		return TargetV4
	}
	return m.plan.v4.Addr()
}

// IPv6 is the machine's public address; the internet's is its target's.
func (m *Machine) IPv6() netip.Addr {
	if m.plan.name == Internet {
		return TargetV6
	}
	return m.plan.v6.Addr()
}

// Uplink is what the internet calls its end of the machine's link, empty for
// the internet itself.
func (m *Machine) Uplink() string { return m.plan.uplink }

// Do runs fn in the machine and returns when fn has returned: sockets that it
// makes are the machine's for good, and files that it opens are the machine's.
// The working directory is /. Goroutines that fn starts do not run in it, so
// neither do calls that start some, such as net.Dial to a name; see DialContext.
func (m *Machine) Do(fn func() error) error {
	return netns.OnThread(func() error {
		if err := m.enter(); err != nil {
			return fmt.Errorf("enter machine %s: %w", m.plan.name, err)
		}
		return fn()
	})
}

// DialContext connects from the machine. Names are looked up with the resolver
// in the machine's /etc/resolv.conf, and a Unix socket's path is the machine's.
func (m *Machine) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "unix" {
		return m.dial(ctx, network, address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		// A dialer tries several addresses from goroutines of its own, which are
		// not in the machine: hence the look-up apart and one address at a time.
		family := "ip" + strings.TrimLeft(network, "tcpud") // "ip", "ip4" or "ip6"
		ips, err := m.resolver().LookupNetIP(ctx, family, host)
		if err != nil {
			return nil, err
		}
		addrs = nil
		for _, ip := range ips {
			addrs = append(addrs, ip.Unmap().String())
		}
	}
	for i, a := range addrs {
		var conn net.Conn
		conn, err = m.dial(ctx, network, net.JoinHostPort(a, port))
		if err == nil || i == len(addrs)-1 {
			return conn, err
		}
	}
	return nil, err
}

// dial is for literal addresses.
func (m *Machine) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = m.Do(func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// resolver asks the first name server of the machine, whatever the host's is.
func (m *Machine) resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			server, err := m.nameServer()
			if err != nil {
				return nil, err
			}
			return m.dial(ctx, network, net.JoinHostPort(server, "53"))
		},
	}
}

func (m *Machine) nameServer() (string, error) {
	b, err := m.ReadFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("no name server in /etc/resolv.conf of %s", m.plan.name)
}

// ReadFile reads a file as the machine sees it.
func (m *Machine) ReadFile(path string) (b []byte, err error) {
	err = m.Do(func() (err error) {
		b, err = os.ReadFile(path)
		return err
	})
	return b, err
}

// HTTPClient makes a client whose connections come from the machine. Every call
// makes a new one with connections of its own.
func (m *Machine) HTTPClient() *http.Client {
	t := &http.Transport{
		DialContext:         m.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
	}
	// An open connection keeps a namespace alive. A lab that is closed already
	// has none to keep.
	_ = m.lab.hold(t, t.CloseIdleConnections)
	return &http.Client{Transport: t}
}
