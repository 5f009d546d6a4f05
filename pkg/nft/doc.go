// Package nft owns the one nftables table of vpnd, `inet vpnd`: what devices in
// the two lanes may reach, the address translation of lane vpn, and the
// redirection of lane tor to ports of this host. A State is
// what should hold; Apply makes it so in one netlink batch, Check tells whether
// the kernel still has it, Remove takes the table away.
//
// Nothing outside the table is ever read for a decision, changed or flushed.
// Interfaces, addresses, routes and forwarding sysctls belong to others; who
// decides on the state and when to check is the caller's affair.
//
// A Firewall may be used from many goroutines. It works in one network
// namespace: the one of Config.NetNS, or of the calling thread. DESIGN.md in
// this folder tells why the rules are cut the way they are.
package nft
