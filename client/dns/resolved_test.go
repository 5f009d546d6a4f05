package dns_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"vpnd/client/dns"
)

// fakeBus is a D-Bus system bus on which only systemd-resolved is.
type fakeBus struct {
	mu    sync.Mutex
	calls []string
	fail  string // member that answers with NoSuchLink
}

func (b *fakeBus) listen(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				if err := b.serve(c); err != nil {
					b.record("bus: " + err.Error())
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
}

func (b *fakeBus) record(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, s)
}

func (b *fakeBus) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.calls
	b.calls = nil
	return out
}

// serve does the handshake of the D-Bus specification ("Authentication
// Protocol") and then answers every call.
func (b *fakeBus) serve(c net.Conn) error {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil // the client went away
		}
		switch line = strings.Trim(line, "\x00\r\n"); {
		case line == "AUTH":
			fmt.Fprint(c, "REJECTED EXTERNAL\r\n")
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			fmt.Fprint(c, "OK 0123456789abcdef0123456789abcdef\r\n")
		case strings.HasPrefix(line, "NEGOTIATE"):
			fmt.Fprint(c, "ERROR\r\n")
		case line == "BEGIN":
			return b.answer(c, r)
		}
	}
}

func (b *fakeBus) answer(c net.Conn, r *bufio.Reader) error {
	for serial := uint32(1); ; serial++ {
		msg, err := dbus.DecodeMessage(r)
		if err != nil {
			return nil
		}
		member := fmt.Sprint(msg.Headers[dbus.FieldMember].Value())
		out := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(msg.Serial()),
			dbus.FieldDestination: dbus.MakeVariant(":1.1"),
			dbus.FieldSender:      dbus.MakeVariant("org.freedesktop.resolve1"),
		}}
		switch member {
		case "Hello":
			out.Body = []any{":1.1"}
		case "Get":
			out.Body = []any{dbus.MakeVariant("x")}
		case b.fail:
			out.Type = dbus.TypeError
			out.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.resolve1.NoSuchLink")
			out.Body = []any{"no such link"}
		default:
			b.record(fmt.Sprintf("%s %v %v", member, msg.Headers[dbus.FieldSignature].Value(), msg.Body))
		}
		if len(out.Body) > 0 {
			out.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(out.Body...))
		}
		// The library numbers messages only on its own connections.
		if _, err := c.Write(encode(out, serial)); err != nil {
			return err
		}
	}
}

func encode(m *dbus.Message, serial uint32) []byte {
	var b bytes.Buffer
	_ = m.EncodeTo(&b, binary.LittleEndian) // what was built here is valid
	binary.LittleEndian.PutUint32(b.Bytes()[8:], serial)
	return b.Bytes()
}

func TestResolved(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, "nameserver 127.0.0.53\noptions edns0 trust-ad\n")
	m.fakeResolvconf(true)
	bus := &fakeBus{}
	bus.listen(t, strings.TrimPrefix(m.paths.SystemBus, "unix:path="))

	m.set(setting)
	if m.rec.Method != dns.Resolved || m.rec.Index != 7 {
		t.Errorf("got record %+v", m.rec)
	}
	want := []string{
		"SetLinkDNS ia(iay) [7 [[2 [9 9 9 9]] [10 [38 32 0 254 0 0 0 0 0 0 0 0 0 0 0 254]]]]",
		"SetLinkDomains ia(sb) [7 [[. true]]]",
		"SetLinkDefaultRoute ib [7 true]",
		"FlushCaches",
	}
	got := bus.take()
	for i := range got {
		if strings.HasPrefix(got[i], "FlushCaches") {
			got[i] = "FlushCaches"
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	m.wantServers("127.0.0.53")
	m.undo()
	if d := cmp.Diff([]string{"RevertLink i [7]"}, bus.take()); d != "" {
		t.Error(d)
	}
	bus.fail = "RevertLink" // the link went with the agent
	m.undo()
}

func TestResolvedThatIsGoneNeedsNoUndoing(t *testing.T) {
	m := newMachine(t)
	if err := m.r.Undo(t.Context(), dns.Record{Method: dns.Resolved, Interface: "vpn0", Index: 7}); err != nil {
		t.Error(err)
	}
}

func TestAStubWithoutABusIsAFileLikeAnyOther(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, "nameserver 127.0.0.53\n")
	m.set(setting)
	if m.rec.Method != dns.File {
		t.Errorf("used %s", m.rec.Method)
	}
}

func TestResolvedIsPassedOverWhereProgramsDoNotAskIt(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	bus := &fakeBus{}
	bus.listen(t, strings.TrimPrefix(m.paths.SystemBus, "unix:path="))
	m.set(setting)
	if calls := bus.take(); m.rec.Method != dns.File || len(calls) != 0 {
		t.Errorf("used %s, calls %v", m.rec.Method, calls)
	}
	if _, err := os.Stat(m.paths.ResolvConf); err != nil {
		t.Error(err)
	}
}
