//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
)

// torWorld is a world with a private Tor network, one client in lane tor, and
// the lane up.
func torWorld(t *testing.T) (*world, *tornet.Network) {
	t.Helper()
	w, l := emptyWorld(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	network, err := tornet.Start(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { network.Close() })
	quoted := make([]string, 0, 16)
	for _, line := range network.TorrcLines() {
		quoted = append(quoted, fmt.Sprintf("%q", line))
	}
	text := w.Config() + cheap + "\n[tor]\nprobe_every = \"5s\"\nextra_torrc = [" + strings.Join(quoted, ", ") + "]\n"
	if err := w.WriteConfig(text); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.createUser("alice")
	w.bootstrap()
	w.connect(lab.Client(1), "alice", "laptop")
	w.run(0, "", lab.Client(1), "vpn", "up", "--lane", "tor")
	return w, network
}

// bootstrap waits for the lane. A client that asks the young network's only
// directory too early may get a part of what it needs and ask again much later:
// such a one begins anew.
func (w *world) bootstrap() {
	w.t.Helper()
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		err := w.Vpnctl(ctx, "tor", "up", "--wait", "--timeout", "20s").Run()
		cancel()
		if err == nil {
			return
		}
		if try == 5 {
			w.t.Fatalf("lane tor does not come up:\n%s", w.ctl(0, "", "tor", "status"))
		}
		w.ctl(0, "", "tor", "stop")
		if err := w.Machine(lab.Server).Do(func() error { return os.RemoveAll("/var/lib/vpnd/tor/data") }); err != nil {
			w.t.Fatal(err)
		}
		w.ctl(0, "", "tor", "start")
	}
}

// Where the private network's relays are.
var (
	relays4 = netip.MustParsePrefix("192.0.2.0/24")
	relays6 = netip.MustParsePrefix("2001:db8:99::/64")
)

// notOfTor gives what left the server for the internet and was neither tor's
// nor an answer to a client's WireGuard or API packets.
func notOfTor(packets []lab.Packet, w *world) []lab.Packet {
	client := w.Machine(lab.Client(1))
	server := w.Machine(lab.Server)
	return slices.DeleteFunc(slices.Clone(packets), func(p lab.Packet) bool {
		own := p.Src == server.IPv4() || p.Src == server.IPv6()
		toClient := (p.Dst == client.IPv4() || p.Dst == client.IPv6()) &&
			(p.Proto == unix.IPPROTO_UDP && p.SrcPort == 51821 || p.Proto == unix.IPPROTO_UDP && p.SrcPort == 51820 || p.SrcPort == 4605)
		return !p.Out || p.Src.IsLinkLocalUnicast() || p.Dst.IsMulticast() || own && (toClient || (relays4.Contains(p.Dst) || relays6.Contains(p.Dst)))
	})
}

func TestLaneTorCarriesTrafficThroughTorOrNowhere(t *testing.T) {
	w, network := torWorld(t)
	laptop := lab.Client(1)
	exits := map[string]bool{}
	for _, e := range network.Exits() {
		exits[e.V4.String()], exits[e.V6.String()] = true, true
	}
	capture, err := w.Machine(lab.Server).Capture(t.Context(), lab.Interface)
	if err != nil {
		t.Fatal(err)
	}

	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		seen, err := w.get(laptop, page(target, "/ip"))
		if err != nil || !exits[seen] {
			t.Errorf("%s saw %q (%v), which is no exit of %v", target, seen, err, exits)
		}
	}
	if virtual, err := w.lookUp(laptop, network.Onion()); err != nil {
		t.Errorf("look up the onion name: %v", err)
	} else if seen, err := w.get(laptop, page(virtual, "/ip")); err != nil {
		t.Errorf("the onion page at %s: %q, %v", virtual, seen, err)
	}
	refusedAtOnce(t, w, laptop)

	// A connection that is open outlives every process of vpnd.
	conn, err := w.Machine(laptop).DialContext(t.Context(), "tcp", netip.AddrPortFrom(lab.TargetV4, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() error {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, "GET /ip HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err == nil && !bytes.Contains(buf[:n], []byte("200 OK")) {
			err = fmt.Errorf("got %q", buf[:n])
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	w.daemon.Kill()
	w.start()
	if err := ask(); err != nil {
		t.Errorf("after vpnd was killed and started again: %v", err)
	}
	w.ctl(0, "", "wait", "tor=up", "--timeout", "30s")

	// Maintenance: the page says why; the open connection is cut.
	w.ctl(0, "", "tor", "maintenance", "--message", "back at <noon>")
	body, err := w.get(laptop, page(lab.TargetV4, "/"))
	if err != nil || !strings.Contains(body, "back at &lt;noon&gt;") {
		t.Errorf("the maintenance page: %q, %v", body, err)
	}
	if err := ask(); err == nil {
		t.Error("a connection goes on in maintenance")
	}
	w.ctl(0, "", "tor", "down", "-y")
	if body, err := w.get(laptop, page(lab.TargetV4, "/")); err == nil {
		t.Errorf("a page answers although the lane is down: %q", body)
	}
	refusedAtOnce(t, w, laptop)
	w.ctl(0, "", "tor", "up", "--wait", "--timeout", "30s")
	if seen, err := w.get(laptop, page(lab.TargetV4, "/ip")); err != nil || !exits[seen] {
		t.Errorf("up again: %q, %v", seen, err)
	}

	torDies(t, w)

	capture.Stop()
	if bad := notOfTor(capture.Packets(), w); len(bad) > 0 {
		t.Errorf("%d packets left the server that are not tor's, the first: %s", len(bad), bad[0])
	}
}

// lookUp asks some resolver outside for an IPv4 address, over UDP and then over
// TCP, which must agree. Go's own resolver never asks for onion names.
func (w *world) lookUp(machine, name string) (netip.Addr, error) {
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	var found [2]netip.Addr
	for i, network := range []string{"udp", "tcp"} {
		c, err := w.Machine(machine).DialContext(w.t.Context(), network, "198.51.100.53:53")
		if err != nil {
			return netip.Addr{}, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		msg := q
		if network == "tcp" {
			msg = append([]byte{0, byte(len(q))}, q...)
		}
		if _, err := c.Write(msg); err != nil {
			return netip.Addr{}, err
		}
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		if network == "tcp" && err == nil && n == 2 { // the length came alone
			n, err = c.Read(buf)
		}
		if err != nil || n < len(q)+4 {
			return netip.Addr{}, fmt.Errorf("%s: %d bytes, %v", network, n, err)
		}
		found[i] = netip.AddrFrom4([4]byte(buf[n-4 : n]))
	}
	if found[0] != found[1] {
		return found[0], fmt.Errorf("udp says %s, tcp says %s", found[0], found[1])
	}
	return found[0], nil
}

// refusedAtOnce sends what lane tor never carries and wants to be told so.
func refusedAtOnce(t *testing.T, w *world, machine string) {
	t.Helper()
	for _, target := range []netip.Addr{lab.TargetV4, lab.TargetV6} {
		c, err := w.Machine(machine).DialContext(t.Context(), "udp", netip.AddrPortFrom(target, 443).String())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = c.SetDeadline(began.Add(5 * time.Second))
		_, _ = c.Write([]byte("quic?"))
		_, err = c.Read(make([]byte, 10))
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			t.Errorf("udp 443 to %s: %v after %s, want a refusal", target, err, time.Since(began))
		}
		_ = c.Close()
	}
}

// torDies kills tor and then makes it hang: the lane leaves up, and comes back
// by itself with another process.
func torDies(t *testing.T, w *world) {
	t.Helper()
	laptop := lab.Client(1)
	var st struct {
		PID  int    `json:"pid"`
		Lane string `json:"lane"`
	}
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		w.ctlJSON(&st, "tor", "status")
		old := st.PID
		if old == 0 {
			t.Fatal("no pid")
		}
		if err := unix.Kill(old, sig); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, func() error {
			if w.ctlJSON(&st, "tor", "status"); st.Lane == "up" && st.PID == old {
				return fmt.Errorf("the lane is still up with pid %d", st.PID)
			}
			return nil
		})
		w.ctl(0, "", "wait", "tor=up", "--timeout", "40s")
		if w.ctlJSON(&st, "tor", "status"); st.PID == old {
			t.Errorf("%s: tor still has pid %d", sig, old)
		}
		if _, err := w.get(laptop, page(lab.TargetV4, "/ip")); err != nil {
			t.Errorf("after %s: %v", sig, err)
		}
	}
}
