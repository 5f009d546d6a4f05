package wgdev

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// The text protocol of userspace WireGuard, as
// https://www.wireguard.com/xplatform/#configuration-protocol gives it: lines of
// key=value, keys in hex, a blank line at the end.

// change is one set operation. Nil and empty fields are left as they are.
type change struct {
	privateKey   *PrivateKey
	listenPort   *uint16
	firewallMark *uint32
	upsert       []Peer
	remove       []Key
}

func (c change) empty() bool {
	return c.privateKey == nil && c.listenPort == nil && c.firewallMark == nil && len(c.upsert) == 0 && len(c.remove) == 0
}

// appendSet writes the body of a set operation, without "set=1" and without the
// blank line. Removals come first, so that an address that moves from one peer
// to another ends up with the new one.
func (c change) appendSet(b []byte) []byte {
	if c.privateKey != nil {
		b = appendHex(b, "private_key=", c.privateKey.b)
	}
	if c.firewallMark != nil {
		b = appendUint(b, "fwmark=", uint64(*c.firewallMark))
	}
	if c.listenPort != nil {
		b = appendUint(b, "listen_port=", uint64(*c.listenPort))
	}
	for _, k := range c.remove {
		b = appendHex(b, "public_key=", k)
		b = append(b, "remove=true\n"...)
	}
	for _, p := range c.upsert {
		b = appendHex(b, "public_key=", p.PublicKey)
		b = appendHex(b, "preshared_key=", p.PresharedKey.b)
		if p.Endpoint.IsValid() {
			b = append(b, "endpoint="...)
			b = append(p.Endpoint.AppendTo(b), '\n')
		}
		b = appendUint(b, "persistent_keepalive_interval=", uint64(p.Keepalive/time.Second))
		b = append(b, "replace_allowed_ips=true\n"...)
		for _, prefix := range p.AllowedIPs {
			b = append(b, "allowed_ip="...)
			b = append(prefix.Masked().AppendTo(b), '\n')
		}
	}
	return b
}

func appendHex(b []byte, name string, key [KeySize]byte) []byte {
	b = append(b, name...)
	b = hex.AppendEncode(b, key[:])
	return append(b, '\n')
}

func appendUint(b []byte, name string, v uint64) []byte {
	b = append(b, name...)
	b = strconv.AppendUint(b, v, 10)
	return append(b, '\n')
}

// deviceState is the answer to a get operation.
type deviceState struct {
	privateKey   PrivateKey
	listenPort   uint16
	firewallMark uint32
	peers        []PeerState
}

// getParser reads the answer to a get operation line by line. Keys it does not
// know are skipped: the protocol allows new ones.
type getParser struct {
	state deviceState
	errno int64 // of the operation; 0 is success
	secs  int64 // of the handshake whose nanoseconds are still to come
}

// line takes one line without its newline; the blank line ends the answer and
// is not for it.
func (g *getParser) line(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte{'='})
	if !ok {
		return fmt.Errorf("answer of the device has a line without '='")
	}
	if err := g.set(string(name), value); err != nil {
		// The value may be a secret key.
		return fmt.Errorf("answer of the device has a bad %q", name)
	}
	return nil
}

var errNoPeer = fmt.Errorf("no peer")

func (g *getParser) set(name string, value []byte) (err error) {
	switch name {
	case "errno":
		g.errno, err = strconv.ParseInt(string(value), 10, 32)
		return err
	case "private_key":
		g.state.privateKey.b, err = parseHex(value)
		return err
	case "listen_port":
		var n uint64
		n, err = strconv.ParseUint(string(value), 10, 16)
		g.state.listenPort = uint16(n)
		return err
	case "fwmark":
		var n uint64
		n, err = strconv.ParseUint(string(value), 0, 32)
		g.state.firewallMark = uint32(n)
		return err
	case "public_key":
		var k Key
		if k, err = parseHex(value); err == nil {
			g.state.peers = append(g.state.peers, PeerState{Peer: Peer{PublicKey: k}})
			g.secs = 0
		}
		return err
	}
	return g.setPeer(name, value)
}

func (g *getParser) setPeer(name string, value []byte) (err error) {
	var p *PeerState
	if n := len(g.state.peers); n > 0 {
		p = &g.state.peers[n-1]
	}
	switch name {
	case "preshared_key", "endpoint", "last_handshake_time_sec", "last_handshake_time_nsec",
		"tx_bytes", "rx_bytes", "persistent_keepalive_interval", "allowed_ip":
		if p == nil {
			return errNoPeer
		}
	}
	switch name {
	case "preshared_key":
		p.PresharedKey.b, err = parseHex(value)
	case "endpoint":
		var e netip.AddrPort
		e, err = netip.ParseAddrPort(string(value))
		p.Endpoint = netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
	case "last_handshake_time_sec":
		g.secs, err = strconv.ParseInt(string(value), 10, 64)
		p.LastHandshake = handshakeTime(g.secs, 0)
	case "last_handshake_time_nsec":
		var nsec int64
		nsec, err = strconv.ParseInt(string(value), 10, 64)
		p.LastHandshake = handshakeTime(g.secs, nsec)
	case "tx_bytes":
		p.TxBytes, err = strconv.ParseUint(string(value), 10, 64)
	case "rx_bytes":
		p.RxBytes, err = strconv.ParseUint(string(value), 10, 64)
	case "persistent_keepalive_interval":
		var n uint64
		n, err = strconv.ParseUint(string(value), 10, 16)
		p.Keepalive = time.Duration(n) * time.Second
	case "allowed_ip":
		var prefix netip.Prefix
		if prefix, err = netip.ParsePrefix(string(value)); err == nil {
			p.AllowedIPs = append(p.AllowedIPs, prefix)
		}
	}
	return err
}

func handshakeTime(sec, nsec int64) time.Time {
	if sec <= 0 && nsec <= 0 {
		return time.Time{}
	}
	return time.Unix(sec, nsec)
}

func parseHex(value []byte) (k [KeySize]byte, err error) {
	if len(value) != 2*KeySize {
		return k, hex.ErrLength
	}
	_, err = hex.Decode(k[:], value)
	return k, err
}

// parseGet reads a whole answer that has no blank line at its end.
func parseGet(text []byte) (deviceState, error) {
	var g getParser
	for line := range bytes.Lines(text) {
		if err := g.line(bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
			return deviceState{}, err
		}
	}
	if g.errno != 0 {
		return deviceState{}, uapiError(g.errno)
	}
	return g.state, nil
}
