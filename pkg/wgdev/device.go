package wgdev

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"vpnd/pkg/fault"
)

// Backend names what carries a device's packets.
type Backend string

// The back ends.
const (
	Kernel    Backend = "kernel"
	Userspace Backend = "userspace"
	InProcess Backend = "in-process"
)

// Config is what a device itself is told; its peers are another matter.
type Config struct {
	PrivateKey   PrivateKey
	ListenPort   uint16 // zero lets the device choose
	FirewallMark uint32 // on the packets that the device sends; zero means none
}

// Info is what a device tells of itself.
type Info struct {
	Backend    Backend
	PublicKey  Key // zero when it was not configured yet
	ListenPort uint16
	PeerCount  int
}

// batch is how many peers travel in one request: about 50 ms of work, after
// which another caller gets its turn.
const batch = 256

// driver is one back end: it does what it is told, checked by Device.
type driver interface {
	program(ctx context.Context, c change) error
	read(ctx context.Context) (deviceState, error)
	close() error
}

// Device is an open WireGuard device. Make it with Open or NewInProcess.
type Device struct {
	name    string
	backend Backend
	drv     driver
	own     atomic.Pointer[Key] // set by Configure
}

// Name is the name of the interface.
func (d *Device) Name() string { return d.name }

// Backend tells what carries the packets.
func (d *Device) Backend() Backend { return d.backend }

// Configure sets key, port and mark, where they differ from what the device has.
// It touches no peer, but a changed private key ends all sessions. A port in use
// by somebody else is fault.Conflict.
func (d *Device) Configure(ctx context.Context, cfg Config) error {
	if cfg.PrivateKey.IsZero() {
		return fault.InvalidField("private_key", "the key is missing")
	}
	have, err := d.drv.read(ctx)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.name, err)
	}
	// Only what differs is sent: setting the port it has makes a userspace device
	// close and reopen its sockets, and packets are lost.
	var c change
	if !have.privateKey.Equal(cfg.PrivateKey) {
		c.privateKey = &cfg.PrivateKey
	}
	if have.firewallMark != cfg.FirewallMark {
		c.firewallMark = &cfg.FirewallMark
	}
	if have.listenPort != cfg.ListenPort && cfg.ListenPort != 0 {
		c.listenPort = &cfg.ListenPort
	}
	own := cfg.PrivateKey.Public()
	if !c.empty() {
		err := d.drv.program(ctx, c)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fault.Wrap(err, fault.Conflict, "UDP port %d, wanted by %s, is in use", cfg.ListenPort, d.name).
				WithHint("find out by whom with `ss -ulpn sport = :%d`, or choose another port", cfg.ListenPort)
		}
		if err != nil {
			return fmt.Errorf("configure %s: %w", d.name, err)
		}
	}
	d.own.Store(&own)
	return nil
}

// Upsert adds peers, or makes existing ones what is given: allowed IPs, preshared
// key and keepalive are replaced, an endpoint only when one is given. Everything
// is checked first and nothing sent when something is wrong. A peer is programmed
// as a whole or not at all; when an error comes in the middle, or ctx ends, some
// peers may be programmed and others not, and the call may be repeated.
//
// An allowed IP that another peer of the device holds is taken from it: who
// holds which is for the caller to keep.
func (d *Device) Upsert(ctx context.Context, peers ...Peer) error {
	var own Key
	if k := d.own.Load(); k != nil {
		own = *k
	}
	if err := checkPeers(own, peers); err != nil {
		return err
	}
	for len(peers) > 0 {
		n := min(batch, len(peers))
		if err := d.drv.program(ctx, change{upsert: peers[:n]}); err != nil {
			return fmt.Errorf("program peers of %s: %w", d.name, err)
		}
		peers = peers[n:]
	}
	return nil
}

// Remove takes peers away; a missing one is no error. When it returns, the
// device neither sends to them nor accepts from them.
func (d *Device) Remove(ctx context.Context, keys ...Key) error {
	for i, k := range keys {
		if k.IsZero() {
			return fault.InvalidField(fmt.Sprintf("keys[%d]", i), "the key is missing")
		}
	}
	for len(keys) > 0 {
		n := min(batch, len(keys))
		if err := d.drv.program(ctx, change{remove: keys[:n]}); err != nil {
			return fmt.Errorf("remove peers of %s: %w", d.name, err)
		}
		keys = keys[n:]
	}
	return nil
}

// Peers lists all peers with their counters, in no order. Its cost grows with
// their number: about 3 µs each in userspace.
func (d *Device) Peers(ctx context.Context) ([]PeerState, error) {
	s, err := d.drv.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("list peers of %s: %w", d.name, err)
	}
	return s.peers, nil
}

// Info tells what the device is. It costs as much as Peers.
func (d *Device) Info(ctx context.Context) (Info, error) {
	s, err := d.drv.read(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("read %s: %w", d.name, err)
	}
	return Info{
		Backend:    d.backend,
		PublicKey:  s.privateKey.Public(),
		ListenPort: s.listenPort,
		PeerCount:  len(s.peers),
	}, nil
}

// Close lets go of the device. A device in the kernel or in its own process
// carries on; one made by NewInProcess ends.
func (d *Device) Close() error { return d.drv.close() }
