// Package nft owns the two nftables tables of vpnd. `inet vpnd` decides: what
// devices in the two lanes may reach, the address translation of lane vpn, and the
// redirection of lane tor to ports of this host. `inet vpnd_canary` counts what of
// the leak test's device was let through all the same. A State is what should
// hold; Apply makes it so in one netlink batch, Check tells whether the kernel
// still has it, Watch when to check, Canary reads the counters, Remove takes the
// tables away.
//
// Nothing outside the tables is ever read for a decision, changed or flushed.
// Interfaces, addresses, routes and forwarding sysctls belong to others; who
// decides on the state and when to check is the caller's affair.
//
// A Firewall may be used from many goroutines. It works in one network
// namespace: the one of Config.NetNS, or of the calling thread. DESIGN.md in
// this folder tells why the rules are cut the way they are.
package nft
