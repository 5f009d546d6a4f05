// Package wgdev owns WireGuard devices: their keys, their peers and, where the
// kernel has no WireGuard, the process that is the device. It is the only
// package that imports wireguard-go and wgctrl. It leaves addresses, routes and
// link settings to package link, and the question of which peers there should
// be to its callers.
//
// A Device has one face over three back ends:
//
//   - kernel: a link of type wireguard, programmed over generic netlink;
//   - userspace: a process of its own per interface (RunDaemon), found by a Unix
//     socket in a run directory, started when it is not there, adopted when it
//     is, and not stopped by anything but Stop;
//   - in-process: wireguard-go inside the calling process, for clients.
//
// Open chooses between the first two, NewInProcess makes the third. A Device may
// be used concurrently; calls to one device are done one after the other. What
// the kernel and the daemon hold outlives the Device, and every call is
// idempotent, so that a caller may repeat what it does not know the end of.
//
// Secret keys print as (redacted); Reveal is the only way to their content.
package wgdev
