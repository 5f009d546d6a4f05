//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed, which must not wait, after every change of any nftables
// rule of a network namespace by anybody, ourselves too: whether it concerns us a
// Check tells, at the cost of one question after changes of ours. It also calls it
// once when it has begun to listen. It returns when ctx ends, with its error, or
// when the kernel does not let it listen. netns is as in Config.
func Watch(ctx context.Context, netns int, changed func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return fmt.Errorf("listen for nftables changes: %w", err)
	}
	defer func() { _ = c.Close() }()
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return explain(fmt.Errorf("listen for nftables changes: %w", err))
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	changed()
	for {
		// What it says does not matter; that it had too much to say neither.
		_, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("listen for nftables changes: %w", err)
		}
		changed()
	}
}
