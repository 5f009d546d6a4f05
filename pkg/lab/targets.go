//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// The mail ports that the targets listen on, to tell whether a contact gets
// through: SMTP, submission over TLS, submission.
var mailPorts = []uint16{25, 465, 587}

const (
	// startTimeout is how long the targets' process may take to answer.
	startTimeout = 10 * time.Second
	// maxContacts bounds the record of contacts; the oldest go first.
	maxContacts = 1000
)

// Contact is one line of the targets' record, which GET /contacts at TargetV4
// and TargetV6 lists as JSON: who asked for a name, who connected to a mail port.
type Contact struct {
	Time    time.Time  `json:"time"`
	Service string     `json:"service"` // "dns" or "mail"
	From    netip.Addr `json:"from"`
	Port    uint16     `json:"port"`             // of the target
	Detail  string     `json:"detail,omitempty"` // for dns: transport, name and type
}

// targets is one running set of targets.
type targets struct {
	wg      sync.WaitGroup
	closers []io.Closer

	mu       sync.Mutex
	ending   bool
	contacts []Contact
}

// ServeTargets runs what a lab has on its internet until ctx ends: HTTP on 80
// (see page), DNS on 53, echo over TCP and UDP on 7, and listeners on the mail
// ports that record contacts. With a nil Machine it listens in the namespace of
// the process, which is how Options.TargetCommand is meant: its process is
// started in the machine Internet.
func ServeTargets(ctx context.Context, internet *Machine) error {
	t, err := listenTargets(internet)
	if err != nil {
		return err
	}
	<-ctx.Done()
	t.close()
	return nil
}

// listenTargets returns when everything answers.
func listenTargets(internet *Machine) (*targets, error) {
	t := &targets{}
	var err error
	if internet == nil {
		err = t.listen()
	} else {
		err = internet.Do(t.listen)
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("targets: %w", err)
	}
	return t, nil
}

func (t *targets) close() {
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	for _, c := range t.closers {
		_ = c.Close()
	}
	t.wg.Wait()
}

// listen opens every socket before it returns and serves on goroutines.
func (t *targets) listen() error {
	for _, a := range []netip.Addr{TargetV4, TargetV6} {
		if err := t.serveHTTP(a); err != nil {
			return err
		}
		if err := t.serveTCP(netip.AddrPortFrom(a, 7), t.echo); err != nil {
			return err
		}
		if err := t.serveUDPEcho(a); err != nil {
			return err
		}
		for _, port := range mailPorts {
			if err := t.serveTCP(netip.AddrPortFrom(a, port), t.mail); err != nil {
				return err
			}
		}
	}
	for _, a := range []netip.Addr{TargetV4, TargetV6, ResolverV4, ResolverV6} {
		if err := t.serveDNS(netip.AddrPortFrom(a, 53)); err != nil {
			return err
		}
	}
	return nil
}

func (t *targets) record(service string, from net.Addr, to net.Addr, detail string) {
	c := Contact{Time: time.Now(), Service: service, From: addrOf(from), Port: portOf(to), Detail: detail}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.contacts) == maxContacts {
		t.contacts = append(t.contacts[:0], t.contacts[1:]...)
	}
	t.contacts = append(t.contacts, c)
}

func addrPortOf(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}

func addrOf(a net.Addr) netip.Addr { return addrPortOf(a).Addr().Unmap() }

func portOf(a net.Addr) uint16 { return addrPortOf(a).Port() }

// serveTCP gives every connection to handle, and closes those that are open
// when the targets end.
func (t *targets) serveTCP(addr netip.AddrPort, handle func(net.Conn)) error {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	conns := &connSet{open: map[net.Conn]bool{}}
	t.closers = append(t.closers, ln, conns)
	t.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || !conns.add(conn) {
				continue
			}
			t.wg.Go(func() {
				defer conns.remove(conn)
				handle(conn)
			})
		}
	})
	return nil
}

// connSet is the open connections of a listener.
type connSet struct {
	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
}

func (s *connSet) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.open[c] = true
	return true
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

// Close closes what is open and what is added later.
func (s *connSet) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	return nil
}

func (t *targets) echo(c net.Conn) { _, _ = io.Copy(c, c) }

// mail greets as a mail server does, so that a client can tell it from a
// firewall that answers in its place.
func (t *targets) mail(c net.Conn) {
	t.record("mail", c.RemoteAddr(), c.LocalAddr(), "")
	_, _ = io.WriteString(c, "220 target.test ESMTP\r\n")
}

func (t *targets) serveUDPEcho(a netip.Addr) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 7)))
	if err != nil {
		return err
	}
	t.closers = append(t.closers, conn)
	t.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	})
	return nil
}

// startTargets starts the targets of a new lab and waits until they answer.
func (l *Lab) startTargets(ctx context.Context, command []string) error {
	internet := l.machines[Internet]
	if len(command) == 0 {
		t, err := listenTargets(internet)
		if err != nil {
			return err
		}
		return l.hold(t, t.close)
	}
	logPath := filepath.Join(l.state.dir(), "targets.log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := internet.Command(command[0], append(command[1:len(command):len(command)], l.state.ID)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal's interrupt reaches it
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start targets: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // also collects it when the lab is closed
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if internet.listens(TargetV4, 80) && internet.listens(ResolverV6, 53) {
			return nil
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(logPath)
			return fmt.Errorf("targets ended at once: %w: %s", errors.Join(err, io.EOF), bytes.TrimSpace(said))
		case <-ctx.Done():
			said, _ := os.ReadFile(logPath)
			return fmt.Errorf("targets do not answer: %w: %s", ctx.Err(), bytes.TrimSpace(said))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// listens tells whether somebody accepts connections there.
func (m *Machine) listens(a netip.Addr, port uint16) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := m.dial(ctx, "tcp", netip.AddrPortFrom(a, port).String())
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
