package wgdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernel is a driver for a link of the kernel's WireGuard. wgctrl knows no
// deadlines; a netlink call is answered by the kernel itself, within the call.
type kernel struct {
	name string
	turn chan struct{} // holds one token: one call at a time
	ctl  *wgctrl.Client
}

func openKernel(name string) (*kernel, error) {
	ctl, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open the kernel's WireGuard: %w", err)
	}
	k := &kernel{name: name, turn: make(chan struct{}, 1), ctl: ctl}
	k.turn <- struct{}{}
	return k, nil
}

func (k *kernel) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-k.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *kernel) give() { k.turn <- struct{}{} }

func (k *kernel) program(ctx context.Context, c change) error {
	if err := k.take(ctx); err != nil {
		return err
	}
	defer k.give()
	return k.explain(k.ctl.ConfigureDevice(k.name, wgConfig(c)))
}

func (k *kernel) read(ctx context.Context) (deviceState, error) {
	if err := k.take(ctx); err != nil {
		return deviceState{}, err
	}
	defer k.give()
	dev, err := k.ctl.Device(k.name)
	if err != nil {
		return deviceState{}, k.explain(err)
	}
	return wgState(dev), nil
}

func (k *kernel) explain(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: interface %s does not exist", ErrGone, k.name)
	}
	return err
}

func (k *kernel) close() error {
	<-k.turn
	defer k.give()
	return k.ctl.Close()
}

func wgConfig(c change) wgtypes.Config {
	var cfg wgtypes.Config
	if c.privateKey != nil {
		key := wgtypes.Key(c.privateKey.b)
		cfg.PrivateKey = &key
	}
	if c.listenPort != nil {
		port := int(*c.listenPort)
		cfg.ListenPort = &port
	}
	if c.firewallMark != nil {
		mark := int(*c.firewallMark)
		cfg.FirewallMark = &mark
	}
	for _, key := range c.remove {
		// Without UpdateOnly a missing peer would be made, to be removed again.
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true, UpdateOnly: true})
	}
	for _, p := range c.upsert {
		psk, keepalive := wgtypes.Key(p.PresharedKey.b), p.Keepalive
		pc := wgtypes.PeerConfig{
			PublicKey:                   wgtypes.Key(p.PublicKey),
			PresharedKey:                &psk,
			PersistentKeepaliveInterval: &keepalive,
			ReplaceAllowedIPs:           true,
		}
		if p.Endpoint.IsValid() {
			pc.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
		}
		for _, prefix := range p.AllowedIPs {
			pc.AllowedIPs = append(pc.AllowedIPs, net.IPNet{
				IP:   prefix.Masked().Addr().AsSlice(),
				Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
			})
		}
		cfg.Peers = append(cfg.Peers, pc)
	}
	return cfg
}

func wgState(dev *wgtypes.Device) deviceState {
	s := deviceState{
		privateKey:   PrivateKey{redacted{dev.PrivateKey}},
		listenPort:   uint16(dev.ListenPort),
		firewallMark: uint32(dev.FirewallMark),
	}
	for _, p := range dev.Peers {
		state := PeerState{
			Peer: Peer{
				PublicKey:    Key(p.PublicKey),
				PresharedKey: PresharedKey{redacted{p.PresharedKey}},
				Keepalive:    p.PersistentKeepaliveInterval,
			},
			RxBytes: uint64(p.ReceiveBytes),
			TxBytes: uint64(p.TransmitBytes),
		}
		// The kernel's "never" is the epoch.
		if p.LastHandshakeTime.Unix() > 0 {
			state.LastHandshake = p.LastHandshakeTime
		}
		if p.Endpoint != nil {
			e := p.Endpoint.AddrPort()
			state.Endpoint = netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
		}
		for _, n := range p.AllowedIPs {
			a, ok := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			if ok {
				state.AllowedIPs = append(state.AllowedIPs, netip.PrefixFrom(a.Unmap(), ones))
			}
		}
		s.peers = append(s.peers, state)
	}
	return s
}
