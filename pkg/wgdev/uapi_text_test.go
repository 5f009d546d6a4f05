package wgdev

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An answer as the specification shows it.
const specAnswer = `private_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a
listen_port=12912
fwmark=0x10
public_key=b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33
preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52
protocol_version=1
endpoint=[abcd:23::33%2]:51820
last_handshake_time_sec=1259
last_handshake_time_nsec=7
tx_bytes=38333
rx_bytes=2224
persistent_keepalive_interval=111
allowed_ip=192.168.4.4/32
allowed_ip=fd00::/64
something_new=1
public_key=58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376
endpoint=182.122.22.19:3233
last_handshake_time_sec=0
last_handshake_time_nsec=0
allowed_ip=192.168.4.6/32
errno=0
`

func TestParseGetReadsTheAnswerOfTheSpecification(t *testing.T) {
	s, err := parseGet([]byte(specAnswer))
	if err != nil {
		t.Fatal(err)
	}
	if s.listenPort != 12912 || s.firewallMark != 16 || s.privateKey.b[0] != 0xe8 || len(s.peers) != 2 {
		t.Fatalf("got %+v", s)
	}
	a, b := s.peers[0], s.peers[1]
	if a.PublicKey[0] != 0xb8 || a.PresharedKey.b[0] != 0x18 || a.Endpoint.String() != "[abcd:23::33%2]:51820" ||
		!a.LastHandshake.Equal(time.Unix(1259, 7)) || a.TxBytes != 38333 || a.RxBytes != 2224 || a.Keepalive != 111*time.Second ||
		len(a.AllowedIPs) != 2 || a.AllowedIPs[1] != netip.MustParsePrefix("fd00::/64") {
		t.Errorf("first peer: %+v", a)
	}
	if b.Endpoint != netip.MustParseAddrPort("182.122.22.19:3233") || !b.LastHandshake.IsZero() || b.Keepalive != 0 || !b.PresharedKey.IsZero() {
		t.Errorf("second peer: %+v", b)
	}
}

func TestParseGetRefuses(t *testing.T) {
	for _, text := range []string{
		"no equals sign\n", "\n", "private_key=00\n", "listen_port=65536\n", "listen_port=-1\n", "fwmark=x\n", "public_key=zz\n",
		"preshared_key=" + strings.Repeat("00", 32) + "\n", // before any peer
		"allowed_ip=10.0.0.0/8\n",
		"public_key=" + strings.Repeat("01", 32) + "\nendpoint=nowhere\n",
		"public_key=" + strings.Repeat("01", 32) + "\nallowed_ip=10.0.0.0/33\n",
		"public_key=" + strings.Repeat("01", 32) + "\nrx_bytes=-1\n",
		"errno=many\n",
	} {
		if _, err := parseGet([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	secret := strings.Repeat("ab", 31)
	if _, err := parseGet([]byte("private_key=" + secret + "\n")); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("the error shows a key: %v", err)
	}
	_, err := parseGet([]byte("errno=-98\n"))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "UDP port") {
		t.Errorf("got %v", err)
	}
	if _, err := parseGet([]byte("errno=-55\n")); err == nil || !strings.Contains(err.Error(), "wireguard answered") {
		t.Errorf("got %v", err)
	}
}

func TestAppendSetWritesTheProtocol(t *testing.T) {
	port, mark := uint16(51820), uint32(7)
	priv, psk := PrivateKey{redacted{[KeySize]byte{0xe8}}}, PresharedKey{redacted{[KeySize]byte{0x18}}}
	got := string(change{
		privateKey: &priv, listenPort: &port, firewallMark: &mark,
		remove: []Key{{0x58}},
		upsert: []Peer{
			{PublicKey: Key{0xb8}, PresharedKey: psk, Endpoint: netip.MustParseAddrPort("[fd00::1]:9"), Keepalive: 25 * time.Second,
				AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("fd00::/64")}},
			{PublicKey: Key{0x66}},
		},
	}.appendSet(nil))
	zeros := strings.Repeat("00", 31)
	want := "private_key=e8" + zeros + "\nfwmark=7\nlisten_port=51820\n" +
		"public_key=58" + zeros + "\nremove=true\n" +
		"public_key=b8" + zeros + "\npreshared_key=18" + zeros + "\nendpoint=[fd00::1]:9\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\n" +
		"public_key=66" + zeros + "\npreshared_key=00" + zeros + "\npersistent_keepalive_interval=0\nreplace_allowed_ips=true\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// FuzzParseGet looks for panics, and for answers that would be written back as
// something else.
func FuzzParseGet(f *testing.F) {
	f.Add([]byte(specAnswer))
	f.Add([]byte("errno=-22\n"))
	f.Add([]byte("public_key=" + strings.Repeat("01", 32) + "\nendpoint=[::ffff:1.2.3.4]:5\nallowed_ip=::ffff:1.2.3.4/128\n"))
	f.Add([]byte("=\n==\nerrno="))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseGet(text)
		if err != nil {
			return
		}
		var c change
		for _, p := range s.peers {
			c.upsert = append(c.upsert, p.Peer)
		}
		written := bytes.ReplaceAll(c.appendSet(nil), []byte("replace_allowed_ips=true\n"), nil)
		again, err := parseGet(written)
		if err != nil {
			t.Fatalf("%q: %v", written, err)
		}
		if len(again.peers) != len(s.peers) {
			t.Fatalf("%d peers became %d", len(s.peers), len(again.peers))
		}
		for i, p := range s.peers {
			if !again.peers[i].SameConfig(p.Peer) || again.peers[i].Endpoint != p.Endpoint {
				t.Errorf("%+v became %+v", p.Peer, again.peers[i].Peer)
			}
		}
	})
}
