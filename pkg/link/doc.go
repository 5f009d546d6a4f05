// Package link owns what the kernel knows of interfaces: links, their
// addresses, routes, policy rules and forwarding switches. It is the only
// package that speaks rtnetlink. It leaves WireGuard keys and peers to wgdev
// and packet filtering to nft.
//
// Everything here is desired state: Apply, ApplyTunnel, Prohibit and EnableForwarding
// compare first, change only what differs and may be repeated, also after a
// crash in the middle. So does UnlimitRefusals.
//
// A *Links belongs to the network namespace of the thread that called Open and
// stays there, whichever goroutine uses it. It may be used concurrently. The
// functions that read or write /proc/sys (EnableForwarding, UnlimitRefusals, IPv6Enabled,
// ApplyTunnel for src_valid_mark) see the namespace of the thread that calls them instead, so
// a test calls those inside netns.NS.Do; a program that never changes namespaces
// need not care.
package link
