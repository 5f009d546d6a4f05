// Package lanes is the one service with CAP_NET_ADMIN: it owns the two
// WireGuard interfaces, their addresses and keys, and the nftables table.
//
// It owns what the kernel (or wireguard-go) holds and brings it back to what is
// wanted, whoever changed it. Which peers there should be it is told by
// sessions, and forgets when it ends: a new epoch makes sessions tell it again,
// while the interfaces go on with the peers they have. A Lanes may be used
// concurrently. DESIGN.md tells about restarts.
package lanes
