//go:build linux

package lab

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// serveDNS answers over UDP and TCP: A and AAAA for target.test and
// example.test, TXT for whoami.test with the address that asks, and that there
// is no other name.
func (t *targets) serveDNS(addr netip.AddrPort) error {
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	t.closers = append(t.closers, pc)
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	t.closers = append(t.closers, ln)
	for _, srv := range []*dns.Server{{PacketConn: pc}, {Listener: ln}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		srv.Handler = dns.HandlerFunc(t.answer)
		srv.ReadTimeout = 5 * time.Second
		srv.NotifyStartedFunc = func() { close(started) }
		t.wg.Go(func() { ended <- srv.ActivateAndServe() })
		select {
		case <-started: // its Shutdown knows nothing of a server that is not running yet
			t.closers = append(t.closers, dnsCloser{srv})
		case err := <-ended:
			return err
		}
	}
	return nil
}

type dnsCloser struct{ srv *dns.Server }

// Close ends the server and waits for the answers that it is writing.
func (c dnsCloser) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return c.srv.ShutdownContext(ctx)
}

func (t *targets) answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	m.RecursionAvailable = true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	}
	asked := q.Question[0]
	t.record("dns", w.RemoteAddr(), w.LocalAddr(),
		w.LocalAddr().Network()+" "+asked.Name+" "+dns.TypeToString[asked.Qtype])
	head := dns.RR_Header{Name: asked.Name, Rrtype: asked.Qtype, Class: dns.ClassINET, Ttl: 5}
	switch strings.ToLower(asked.Name) {
	case "target.test.", "example.test.":
		switch asked.Qtype {
		case dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: head, A: TargetV4.AsSlice()}}
		case dns.TypeAAAA:
			m.Answer = []dns.RR{&dns.AAAA{Hdr: head, AAAA: TargetV6.AsSlice()}}
		}
	case "whoami.test.":
		if asked.Qtype == dns.TypeTXT {
			m.Answer = []dns.RR{&dns.TXT{Hdr: head, Txt: []string{addrOf(w.RemoteAddr()).String()}}}
		}
	default:
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}
