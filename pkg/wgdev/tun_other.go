//go:build !linux

package wgdev

import (
	"fmt"

	"golang.zx2c4.com/wireguard/tun"
)

// openTUN makes the interface; only Linux knows persistent ones.
func openTUN(name string, mtu int, _ bool) (tun.Device, error) {
	dev, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("make interface %s: %w", name, err)
	}
	return dev, nil
}
