//go:build linux

package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// WatchRules calls changed, which must not wait, after every change of a routing
// rule by anybody, and once when it has begun to listen. It returns when ctx ends,
// with its error, or when the kernel does not let it listen. It listens in the
// namespace of the calling thread.
func WatchRules(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("listen for changes of routing rules: %w", err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	changed()
	for {
		_, _, err := s.Receive() // what it says does not matter
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("listen for changes of routing rules: %w", err)
		}
		changed()
	}
}
